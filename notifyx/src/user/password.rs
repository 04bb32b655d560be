//! Passwords: from the terminal without echo, from standard input, or from the environment. Never an argument.

use std::io::{self, BufRead, IsTerminal};

use crate::exit::Failure;

/// Above auth's own bound of 256; what is longer is refused there with its reason.
const READ_MAX: u64 = 1024;

/// Asks for the password; `twice` where a slip of the hand would lock the user out.
pub(crate) fn ask(from_stdin: bool, twice: bool) -> Result<String, Failure> {
    if from_stdin {
        return first_line(io::stdin().lock()).map_err(Failure::machine("cannot read the password"));
    }
    match std::env::var("NOTIFYX_PASSWORD") {
        Ok(password) => return Ok(password),
        Err(std::env::VarError::NotUnicode(_)) => return Err(Failure::Usage("NOTIFYX_PASSWORD is not UTF-8".into())),
        Err(std::env::VarError::NotPresent) => {}
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask for the password: use --password-stdin or NOTIFYX_PASSWORD".into(),
        ));
    }
    let prompt = |text| rpassword::prompt_password(text).map_err(Failure::machine("cannot ask for the password"));
    let password = prompt("Password: ")?;
    if twice && prompt("The same again: ")? != password {
        return Err(Failure::Usage("the two passwords differ".into()));
    }
    Ok(password)
}

fn first_line(input: impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(READ_MAX).read_line(&mut line)?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_ends_with_its_line_and_keeps_its_spaces() {
        assert_eq!(first_line(" a b \r\nc\n".as_bytes()).unwrap(), " a b ");
        assert_eq!(first_line("".as_bytes()).unwrap(), "");
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }
}
