//! What a request for a stream of events asks for: which category, from where on, and with what credentials. The same over
//! a WebSocket (`/ws/events/{category}`) and as Server-Sent Events (`/events/{category}/stream`).

use actix_http::{
    RequestHead,
    header::{AUTHORIZATION, HeaderName},
};
use notifyx_chassis::Denied;
use notifyx_model::{Category, Token};
use url::form_urlencoded;

use super::handshake::{Entry, Refusal};

/// What an `EventSource` has last seen: it sends it by itself when it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// An `EventSource` that is refused gives up for ever, and what it sends by itself is nothing that its page could mend. One that has seen an
/// id which is none of ours, as at a server that was here before, has an offset that this stream never reached: it is told where the stream stands.
const NOWHERE: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) category: Category,
    /// The last offset that the client has.
    pub(super) from: Option<u64>,
    /// A session's or a key; `None` where none is shown and none is needed.
    pub(super) token: Option<Token>,
}

impl Wanted {
    /// `category` is as it stands in the path.
    pub(super) fn parse(category: &str, head: &RequestHead, entry: &Entry) -> Result<Self, Refusal> {
        let decoded = decode(category).ok_or(Refusal::CategoryNotUtf8)?;
        let category = Category::parse(&decoded).map_err(Refusal::Category)?;
        let query = head.uri.query().unwrap_or_default();
        let param = |name: &str| form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == name).map(|(_, v)| v);
        let last = head.headers.get(LAST_EVENT_ID).map(|last| String::from_utf8_lossy(last.as_bytes()));
        let from = match last.filter(|last| !last.is_empty()) {
            Some(last) => Some(last.parse().unwrap_or(NOWHERE)),
            None => param("from").map(|from| offset(&from)).transpose()?,
        };
        let token = match (bearer(head)?, param("token")) {
            (Some(token), _) => Some(token),
            (None, Some(token)) => Some(Token::parse(&token).map_err(|_| Denied::BadToken)?),
            (None, None) if entry.anonymous => None,
            (None, None) => return Err(Refusal::NoToken),
        };
        Ok(Self { category, from, token })
    }
}

fn offset(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal::From(text.chars().take(40).collect()))
}

fn bearer(head: &RequestHead) -> Result<Option<Token>, Refusal> {
    let Some(value) = head.headers.get(AUTHORIZATION) else { return Ok(None) };
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denied::BadHeader("authorization").into());
    }
    Ok(Some(Token::parse(token.trim()).map_err(|_| Denied::BadToken)?))
}

/// Bytes written `%41` as they are meant; what is no such escape stands for itself.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| after.get(..2)).flatten();
        let byte = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use actix_http::header::HeaderValue;
    use notifyx_model::Fault;

    use super::*;

    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

    fn parse(
        category: &str,
        query: &str,
        headers: &[(&'static str, &str)],
        anonymous: bool,
    ) -> Result<Wanted, Refusal> {
        let mut head = RequestHead::default();
        head.uri = format!("/ws/events/{category}?{query}").parse().unwrap();
        for (name, value) in headers {
            head.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        Wanted::parse(category, &head, &Entry { anonymous, ..Entry::default() })
    }

    #[test]
    fn a_category_may_be_written_with_escapes() {
        for (written, meant) in
            [("orders", "orders"), ("a%20b%3A%c3%a9", "a b:é"), ("50%25", "50%"), ("a+b", "a+b"), ("1%", "1%")]
        {
            let wanted = parse(written, &format!("token={TOKEN}"), &[], false).expect(written);
            assert_eq!((wanted.category.as_str(), wanted.from), (meant, None));
            assert_eq!(wanted.token.unwrap().as_str(), TOKEN);
        }
    }

    #[test]
    fn what_does_not_fit_is_told_what_and_why() {
        let long = "c".repeat(300);
        let token = format!("token={TOKEN}");
        for (category, query, kind, why) in [
            ("", &*token, "category_invalid", "is empty"),
            ("a%2Fb", &token, "category_invalid", "holds a /"),
            ("%ff", &token, "category_invalid", "UTF-8"),
            ("a%00", &token, "category_invalid", "control character"),
            (&long, &token, "category_invalid", "more than 200"),
            ("a", &format!("{token}&from=-1"), "from_invalid", "`from`"),
            ("a", &format!("{token}&from="), "from_invalid", "`from`"),
            ("a", &format!("{token}&from=99999999999999999999"), "from_invalid", "`from`"),
            ("a", "", "credentials_missing", "?token="),
            ("a", "token=short", "token_invalid", "token"),
        ] {
            let refusal = parse(category, query, &[], false).unwrap_err();
            assert_eq!(refusal.code(), kind, "{category}?{query}");
            assert!(refusal.to_string().contains(why), "{refusal}");
        }
        let told = |value| parse("a", "", &[("authorization", value)], true).unwrap_err().code().to_owned();
        assert_eq!(
            [told("Basic YTpi"), told("Bearer"), told("Bearer x")],
            ["header_invalid", "header_invalid", "token_invalid"]
        );
        assert!(parse("a", "", &[], true).unwrap().token.is_none());
    }

    #[test]
    fn headers_go_before_the_query() {
        let headers = [("last-event-id", "7"), ("authorization", &format!("bearer {TOKEN}"))];
        let wanted = parse("a", "from=3&token=another-token-here", &headers, false).unwrap();
        assert_eq!((wanted.from, wanted.token.unwrap().as_str()), (Some(7), TOKEN));
        let wanted = parse("a", "from=3", &[("last-event-id", "")], true).unwrap();
        assert_eq!(wanted.from, Some(3), "an empty one says that nothing was seen");
    }

    #[test]
    fn an_event_id_that_is_no_offset_is_one_that_was_never_reached() {
        for id in ["x", "-1", "1.5", "99999999999999999999", "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40"] {
            assert_eq!(parse("a", "from=3", &[("last-event-id", id)], true).unwrap().from, Some(NOWHERE), "{id}");
        }
    }
}
