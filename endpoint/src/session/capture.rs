//! NCAP: checks and the filter in force (spec `endpoint.md` §5.5, `raw.md` §4).

use pktlab::vmem::SocketState;
use pktlab::wire::{ErrId, NCap};

use super::Session;
use super::request::matches;

/// Longest NCAP program, bytes.
const FILTER_MAX: usize = 65_536;

impl Session {
    /// Captures exist for raw sockets only, which this endpoint cannot open; a stream or datagram socket is left alone.
    pub(super) fn capture(&mut self, capture: &NCap) {
        let errid = match &self.slots[usize::from(capture.socket)] {
            Some(slot) if matches!(slot.state, SocketState::Opening | SocketState::Open) => {
                if !matches(slot, capture.family, capture.proto) {
                    ErrId::ESKTNOMATCH
                } else if capture.filter.len() > FILTER_MAX {
                    ErrId::ESKTBADFILT
                } else {
                    ErrId::EUNKFAULT
                }
            }
            _ => ErrId::ESKTNOTOPEN,
        };
        self.result(errid);
    }
}
