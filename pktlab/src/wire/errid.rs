//! Result codes (spec `messages.md` §3.2).

use std::fmt;

use super::ErrId;

macro_rules! errids {
    ($($name:ident = $value:literal: $sense:literal,)*) => {
        impl ErrId {
            $(#[doc = $sense] pub const $name: ErrId = ErrId($value);)*

            /// Name and sense, if this value is assigned.
            fn describe(self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(ErrId::$name => Some((stringify!($name), $sense)),)*
                    _ => None,
                }
            }
        }
    };
}

errids! {
    SUCCESS = 0x0000: "success",
    ECTLBADMSG = 0x0010: "malformed message",
    ECTLNOTSUP = 0x0011: "message not supported here",
    ECTLMONREJ = 0x0012: "refused by a monitor",
    ECTLMONUKN = 0x0013: "a monitor failed",
    ECRTBADHDAT = 0x0020: "supplied program unusable",
    ECRTNOHDAT = 0x0021: "a required program is missing",
    ECRTBADFRM = 0x0022: "certificate not in proper form",
    ECRTNOSPACE = 0x0023: "no room for another certificate",
    ECRTBADHINT = 0x0024: "unknown hint",
    ESYSNOBUFS = 0x0030: "no buffer space",
    ESYSNOPERM = 0x0031: "not permitted by the system",
    ESKTINUSE = 0x0032: "socket number already open",
    ESKTNOTOPEN = 0x0033: "socket number not open",
    ESKTNOPRFAM = 0x0034: "family not supported",
    ESKTNOPROTO = 0x0035: "protocol not supported",
    ESKTNOADDR = 0x0036: "address not available",
    ESKTNOMATCH = 0x0037: "family or protocol differ from the socket's",
    ESKTBADFILT = 0x0038: "filter program refused",
    ESKTPKTDENY = 0x0039: "packet refused by a limit",
    ESKTOPNDENY = 0x003A: "opening refused by a limit",
    ETCPNOPORT = 0x0040: "TCP port not available",
    EPKTNOTSENT = 0x0041: "packet not sent",
    EUDPNOPORT = 0x0042: "UDP port not available",
    EPKTTRUNC = 0x0043: "packet was truncated",
    ENORES = 0x0044: "out of resources",
    EMEMBADADR = 0x0048: "bad memory address or length",
    EPUBBADCHL = 0x0050: "XPUB: bad channel list",
    EPUBBADCHN = 0x0051: "XPUB: bad channel",
    EPUBBADADDR = 0x0052: "XPUB: bad controller address",
    EPUBBADPR = 0x0053: "XPUB: bad priority",
    EPUBBADXD = 0x0054: "XPUB: bad experiment descriptor",
    ESUBBADCHL = 0x0060: "XSUB: bad channel list",
    ESUBBADCHN = 0x0061: "XSUB: bad channel",
    ESUBBADDA = 0x0062: "XSUB: bad endpoint attributes",
    EUNKFAULT = 0xFFFF: "unspecified fault",
}

impl fmt::Display for ErrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.describe() {
            Some((name, sense)) => write!(f, "{name} ({sense})"),
            None => write!(f, "error 0x{:04x}", self.0),
        }
    }
}
