//! Names, resolved as at the endpoint: a stub resolver that talks to the resolvers the endpoint exports.
//!
//! Names of this host are loopback addresses, numeric text is itself, there is no search list. `exchange` is the transport.

mod exchange;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::context::Context;

/// What getaddrinfo would return (netdb.h).
pub mod eai {
    pub const NONAME: i32 = -2;
    pub const AGAIN: i32 = -3;
    pub const NODATA: i32 = -5;
    pub const FAMILY: i32 = -6;
    pub const ADDRFAMILY: i32 = -9;
    pub const SYSTEM: i32 = -11;
}

/// Addresses wanted.
#[derive(Clone, Copy, Debug)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

/// A name's addresses in the order to use, and its canonical name.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub addresses: Vec<IpAddr>,
    pub canonical: String,
}

/// CNAMEs followed at most.
const ALIASES_MOST: usize = 16;

/// Name to addresses. `Err` is an EAI code.
pub async fn resolve(context: &Context, name: &str, wanted: Families) -> Result<Found, i32> {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    if let Some(found) = known(name, wanted, &hosts) {
        return found;
    }
    let asked = absolute(name)?;
    let mut types = Vec::new();
    if wanted.v4 {
        types.push(RecordType::A);
    }
    if wanted.v6 {
        types.push(RecordType::AAAA);
    }
    let answers = exchange::ask(context, types.iter().map(|kind| question(&asked, *kind)).collect()).await;
    let mut addresses = Vec::new();
    let mut canonical = None;
    let mut failure = None;
    for answer in answers {
        let Some(message) = answer.and_then(|answer| Message::from_vec(&answer).ok()) else {
            failure = Some(eai::AGAIN);
            continue;
        };
        let (last, found) = addresses_of(&message, &asked);
        if found.is_empty() {
            let code = match message.metadata.response_code {
                ResponseCode::NoError => eai::NODATA,
                ResponseCode::NXDomain => eai::NONAME,
                // As with glibc: no server could say.
                _ => eai::AGAIN,
            };
            // A server that could not say is worth another try, whatever the other family's answer was.
            failure = failure.filter(|known| *known == eai::AGAIN || *known == eai::NONAME).or(Some(code));
        } else {
            canonical.get_or_insert(last);
            addresses.extend(found);
        }
    }
    if addresses.is_empty() {
        return Err(failure.unwrap_or(eai::NONAME));
    }
    // IPv6 first where the endpoint has it; addresses that cannot be reached from there last.
    let reachable =
        context.pool.info().ipv6.iter().any(|ip| !ip.is_unicast_link_local() && !ip.is_loopback());
    addresses.sort_by_key(|ip| ip.is_ipv6() != reachable);
    Ok(Found { addresses, canonical: canonical.unwrap_or_else(|| text(&asked)) })
}

/// Address to name. `Err` is an EAI code.
pub async fn reverse(context: &Context, ip: IpAddr) -> Result<String, i32> {
    if ip.is_loopback() {
        return Ok("localhost".to_owned());
    }
    let asked = Name::from(ip);
    let answer =
        exchange::ask(context, vec![question(&asked, RecordType::PTR)]).await.into_iter().next().flatten();
    let message = answer.and_then(|answer| Message::from_vec(&answer).ok()).ok_or(eai::AGAIN)?;
    let name = message.answers.iter().find_map(|record| match &record.data {
        RData::PTR(name) => Some(text(&name.0)),
        _ => None,
    });
    name.ok_or(eai::NONAME)
}

/// A program's own DNS message to the endpoint's resolvers; the answer as it came.
pub async fn query(context: &Context, message: &[u8]) -> Option<Vec<u8>> {
    // Header and one question at least; a response is no query.
    if message.len() < 17 || message[2] & 0x80 != 0 {
        return None;
    }
    exchange::ask(context, vec![message.to_vec()]).await.into_iter().next().flatten()
}

/// Names that need no server.
fn known(name: &str, wanted: Families, hosts: &str) -> Option<Result<Found, i32>> {
    let plain = name.strip_suffix('.').unwrap_or(name);
    let found = |addresses: Vec<IpAddr>| {
        let addresses: Vec<IpAddr> =
            addresses.into_iter().filter(|ip| if ip.is_ipv4() { wanted.v4 } else { wanted.v6 }).collect();
        if addresses.is_empty() {
            return Err(eai::ADDRFAMILY);
        }
        Ok(Found { addresses, canonical: plain.to_owned() })
    };
    if let Ok(ip) = plain.parse::<IpAddr>() {
        return Some(found(vec![ip]));
    }
    let lower = plain.to_ascii_lowercase();
    let both = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    match lower.as_str() {
        _ if !listed(hosts, &lower).is_empty() => Some(found(listed(hosts, &lower))),
        "localhost" | "localhost.localdomain" => Some(found(both)),
        "ip6-localhost" | "ip6-loopback" => Some(found(vec![Ipv6Addr::LOCALHOST.into()])),
        other if other.ends_with(".localhost") => Some(found(both)),
        _ => None,
    }
}

/// Loopback addresses of a name in the text of /etc/hosts: those mean this machine. All other lines are this network's
/// view of the world, which a wrapped program is not to see.
fn listed(hosts: &str, name: &str) -> Vec<IpAddr> {
    let entries = hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip: IpAddr = words.next()?.parse().ok()?;
        (ip.is_loopback() && words.any(|word| word.eq_ignore_ascii_case(name))).then_some(ip)
    });
    entries.collect()
}

fn absolute(name: &str) -> Result<Name, i32> {
    if name.is_empty() {
        return Err(eai::NONAME);
    }
    let mut absolute = Name::from_ascii(name).map_err(|_| eai::NONAME)?;
    absolute.set_fqdn(true);
    Ok(absolute)
}

fn question(name: &Name, kind: RecordType) -> Vec<u8> {
    let id = u16::from_ne_bytes(crate::random());
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    message.to_vec().unwrap_or_default()
}

/// Follows the aliases from the asked name; the last name and its addresses.
fn addresses_of(message: &Message, asked: &Name) -> (String, Vec<IpAddr>) {
    let mut name = asked.clone();
    for _ in 0..ALIASES_MOST {
        let next = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == name => Some(alias.0.clone()),
            _ => None,
        });
        match next {
            Some(next) => name = next,
            None => break,
        }
    }
    let addresses = message.answers.iter().filter(|record| record.name == name);
    let addresses = addresses.filter_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    });
    (text(&name), addresses.collect())
}

/// Without the final dot.
fn text(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, CNAME};

    use super::*;

    const BOTH: Families = Families { v4: true, v6: true };

    #[test]
    fn names_that_need_no_server() {
        let only4 = Families { v4: true, v6: false };
        let found = known("192.0.2.7", BOTH, "").expect("known").expect("found");
        assert_eq!(found.addresses, ["192.0.2.7".parse::<IpAddr>().expect("address")]);
        assert_eq!(known("::1", only4, ""), Some(Err(eai::ADDRFAMILY)));
        assert_eq!(known("a.LocalHost.", only4, "").expect("known").expect("found").addresses.len(), 1);
        assert_eq!(known("localhost", BOTH, "").expect("known").expect("found").addresses.len(), 2);
        assert_eq!(known("localhost.example", BOTH, ""), None);
        let hosts = "127.0.0.1 localhost\n127.0.1.1\tbox # Box\n192.0.2.1 web\n";
        assert_eq!(known("localhost", BOTH, hosts).expect("known").expect("found").addresses.len(), 1);
        assert!(known("BOX", BOTH, hosts).is_some());
        assert_eq!(known("web", BOTH, hosts), None, "the local network's view");
    }

    #[test]
    fn aliases_are_followed_and_strangers_ignored() {
        let name = |text: &str| Name::from_ascii(text).expect("name");
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.add_answer(Record::from_rdata(name("b.example."), 1, RData::A(A::new(192, 0, 2, 1))));
        message.add_answer(Record::from_rdata(
            name("a.example."),
            1,
            RData::CNAME(CNAME(name("b.example."))),
        ));
        message.add_answer(Record::from_rdata(name("evil.example."), 1, RData::A(A::new(192, 0, 2, 9))));
        let (canonical, addresses) = addresses_of(&message, &name("A.example."));
        assert_eq!(canonical, "b.example");
        assert_eq!(addresses, ["192.0.2.1".parse::<IpAddr>().expect("address")]);
    }

    #[test]
    fn a_loop_of_aliases_ends() {
        let name = |text: &str| Name::from_ascii(text).expect("name");
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.add_answer(Record::from_rdata(name("a."), 1, RData::CNAME(CNAME(name("b.")))));
        message.add_answer(Record::from_rdata(name("b."), 1, RData::CNAME(CNAME(name("a.")))));
        assert!(addresses_of(&message, &name("a.")).1.is_empty());
    }
}
