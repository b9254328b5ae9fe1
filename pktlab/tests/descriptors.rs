//! The 39 matching vectors (spec `broker.md` §4.4).
#![allow(clippy::unwrap_used, reason = "tests")]

#[test]
fn every_vector_matches_as_it_says() {
    let all: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("vectors/xdescr_match.json")).unwrap();
    assert_eq!(all.len(), 39, "number of vectors");
    for vector in all {
        let text = |name: &str| vector[name].as_str().unwrap().as_bytes().to_vec();
        let found = pktlab::descriptor::matches(&text("xdescr"), &text("dattr"));
        assert_eq!(found, vector["match"].as_bool().unwrap(), "{}", vector["name"]);
    }
}
