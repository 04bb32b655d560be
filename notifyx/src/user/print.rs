//! How commands speak: lines for people, or one JSON object per line for scripts. Answers go to standard output, remarks to
//! standard error.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

use crate::exit::Failure;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
}

/// The few styles there are, by what they mean.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// What the eye should find first.
    Strong,
    /// What can be passed over.
    Faint,
    Good,
    Bad,
}

impl Output {
    pub(crate) fn new(json: bool, no_color: bool) -> Self {
        Self { json, colour: !json && colour_wanted(no_color) && io::stdout().is_terminal() }
    }

    pub(crate) fn json(self) -> bool {
        self.json
    }

    /// One answer: `record` for scripts, `text` for people.
    pub(crate) fn answer<R: Serialize>(self, record: &R, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self::record(record) } else { line(&text()) }
    }

    /// A remark for people, beside the answer.
    pub(crate) fn remark(self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// `text` made safe for a terminal and, on one that wants it, coloured.
    pub(crate) fn paint(self, style: Style, text: impl Display) -> String {
        let text = text.to_string();
        let text = clean(&text);
        if !self.colour {
            return text.into_owned();
        }
        let code = match style {
            Style::Strong => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// One line on standard output, there at once.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::machine("standard output"))
}

/// One object on standard output, for scripts.
pub(crate) fn record<R: Serialize>(record: &R) -> Result<(), Failure> {
    line(&serde_json::to_string(record).expect("records are plain data"))
}

/// <https://no-color.org>: any value that is not empty.
pub(crate) fn colour_wanted(no_color: bool) -> bool {
    !no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What others wrote, without power over the terminal: control characters and changes of writing direction are shown, not
/// obeyed. Line breaks stay, indented under the first line.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.trim_end().chars() {
        match c {
            '\n' => shown.push_str("\n    "),
            '\t' => shown.push('\t'),
            '\r' => {}
            c if harmful(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// `2026-07-31 12:03:04Z`: to the second, which is what people read.
pub(crate) fn moment(time: notifyx_model::Timestamp) -> String {
    let text = time.to_string();
    text.get(..19).map_or_else(|| text.clone(), |seconds| format!("{}Z", seconds.replace('T', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        assert_eq!(clean("\u{1b}[2Jhi\u{7}"), "\\u{1b}[2Jhi\\u{7}");
        assert_eq!(clean("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(clean("one\r\ntwo\n"), "one\n    two");
        assert!(matches!(clean("grüß dich"), Cow::Borrowed(_)));
    }

    #[test]
    fn no_colour_means_plain_text() {
        let output = Output { json: false, colour: false };
        assert_eq!(output.paint(Style::Bad, "x\u{1b}"), "x\\u{1b}");
        assert_eq!(Output { colour: true, ..output }.paint(Style::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
    }

    #[test]
    fn a_moment_is_shown_to_the_second() {
        assert_eq!(moment(notifyx_model::Timestamp::from_micros(1_767_225_600_123_456)), "2026-01-01 00:00:00Z");
    }
}
