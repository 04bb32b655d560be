//! An address that others can call: `host:port`, parsed at the door.

use std::{fmt, net::IpAddr};

use crate::error::Error;

/// `host:port`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(String);

/// The longest name that DNS knows.
const HOST_BYTES_MAX: usize = 253;

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why| {
            // Bounded, as it goes back to the caller.
            let address = text.chars().take(HOST_BYTES_MAX).collect();
            Err(Error::Address { address, why })
        };
        let Some((host, port)) = text.rsplit_once(':') else { return refuse("is not host:port") };
        // `parse` would take a sign.
        if !port.bytes().all(|b| b.is_ascii_digit()) || !matches!(port.parse::<u16>(), Ok(1..)) {
            return refuse("has no port of 1 to 65535");
        }
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let ip: Option<IpAddr> = match bracketed {
            Some(inside) => match inside.parse() {
                Ok(IpAddr::V6(ip)) => Some(ip.into()),
                Ok(IpAddr::V4(_)) | Err(_) => return refuse("has no IPv6 address in its brackets"),
            },
            None => host.parse().ok().filter(IpAddr::is_ipv4),
        };
        if ip.is_some_and(|ip| ip.is_unspecified()) {
            return refuse("stands for every address of its own machine: advertise one that others can call");
        }
        let named = (1..=HOST_BYTES_MAX).contains(&host.len())
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if ip.is_some() || named { Ok(Self(text.to_owned())) } else { refuse("has no valid host") }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_call_is_taken() {
        for good in ["127.0.0.1:6000", "persist:6000", "persist-2.example.org:1", "[::1]:65535"] {
            assert_eq!(Address::parse(good).unwrap().to_string(), good);
        }
    }

    #[test]
    fn what_they_cannot_is_refused() {
        let long = format!("{}:1", "h".repeat(254));
        let bad = [
            "",
            ":",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:+80",
            "host:65536",
            "ho st:80",
            "host/path:80",
            "a@b:80",
            "[::1:80",
            "::1:80",
            "[127.0.0.1]:80",
            "0.0.0.0:80",
            "[::]:80",
            "h\0st:80",
            &long,
        ];
        for bad in bad {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        let why = Address::parse("0.0.0.0:80").unwrap_err().to_string();
        assert!(why.contains("advertise one that others can call"), "{why}");
    }
}
