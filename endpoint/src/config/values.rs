//! Values that TOML has no type for: times, burst limits, networks.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use pktlab::cert;
use serde::{Deserialize, Deserializer, de};

/// A length of time: a whole number and one of ns, us, ms, s, min, h, d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no time; write a number and a unit, for example \"10s\" or \"500ms\"");
        let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(unit);
        let ns = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "min" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 86_400 * 1_000_000_000_u64,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(ns).map(|ns| Self(Duration::from_nanos(ns))).ok_or_else(wrong)
    }
}

/// `"COUNT/TIME"`, or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst(pub Option<cert::Burst>);

impl std::str::FromStr for Burst {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let wrong = || {
            format!("`{text}` is no burst limit; write BYTES/TIME, for example \"12500000/10s\", or \"none\"")
        };
        let (count, window) = text.split_once('/').ok_or_else(wrong)?;
        let Span(window) = window.parse().map_err(|_| wrong())?;
        let count = count.parse().map_err(|_| wrong())?;
        let window = u64::try_from(window.as_nanos()).map_err(|_| wrong())?;
        if count == 0 || window == 0 {
            return Err(wrong());
        }
        Ok(Self(Some(cert::Burst { count, window })))
    }
}

/// An address, or a network as ADDRESS/LENGTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub cert::Network);

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no network; write 192.0.2.0/24, 2001:db8::/32 or an address");
        let (addr, prefix) = text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let full = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(len) => len.parse().ok().filter(|len| *len <= full).ok_or_else(wrong)?,
            None => full,
        };
        Ok(Self(cert::Network { addr, prefix }))
    }
}

/// An entry of `allow` in `[policy]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// `own`: this host.
    Own,
    /// `all`: everything but what `deny` names.
    All,
    Network(cert::Network),
}

impl std::str::FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "own" => Ok(Self::Own),
            "all" => Ok(Self::All),
            _ => match text.parse() {
                Ok(Network(network)) => Ok(Self::Network(network)),
                Err(error) => Err(format!("{error}, or \"own\" or \"all\"")),
            },
        }
    }
}

/// Text that is read by `FromStr`; the error names the value.
fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

macro_rules! deserialized_from_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parsed(deserializer)
            }
        }
    )*};
}

deserialized_from_text!(Span, Burst, Network, Allowed);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, ns) in
            [("10s", 10_000_000_000), ("500ms", 500_000_000), ("0s", 0), ("2min", 120_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_nanos(ns))), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "10 s", "99999999999999d", "1m"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn bursts_are_bytes_per_time() {
        let burst = cert::Burst { count: 12_500_000, window: 10_000_000_000 };
        assert_eq!("12500000/10s".parse(), Ok(Burst(Some(burst))));
        assert_eq!("none".parse(), Ok(Burst(None)));
        for text in ["", "1", "1/", "/1s", "0/1s", "1/0s", "1/2", "None"] {
            assert!(text.parse::<Burst>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_have_one_family() {
        let v4 = cert::Network { addr: "192.0.2.0".parse().expect("address"), prefix: 24 };
        assert_eq!("192.0.2.0/24".parse(), Ok(Allowed::Network(v4)));
        assert_eq!("::1".parse::<Network>().map(|network| network.0.prefix), Ok(128));
        assert_eq!("own".parse(), Ok(Allowed::Own));
        assert_eq!("all".parse(), Ok(Allowed::All));
        for text in ["192.0.2.0/33", "::/129", "host", "", "192.0.2.0/", "192.0.2/24"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
