//! Capture filters: arbitrary programs, loaded and run over arbitrary packets. The input is an encoded program, and at
//! the same time the packet it looks at.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pktendpt::filter::{Filter, Packet, Verdict};
use pktlab::program::Program;

fuzz_target!(|data: &[u8]| {
    // The length would be right one time in eight; what is left over belongs to the packet only.
    let whole = data.len().saturating_sub(1) / 8 * 8 + 1;
    let encoded = &data[..whole.min(data.len())];
    let Ok(program) = Program::decode(Bytes::copy_from_slice(encoded)) else { return };
    let Ok(filter) = Filter::load(&program) else { return };
    let clocked = program.instructions().any(|i| i.opcode == 0x85);
    for (packet, len) in [(data, data.len() as u32), (&data[..data.len() / 2], 9000), (&[][..], 0)] {
        let packet = Packet { data: packet, len, ethertype: 0x86DD, ifindex: 2, pkt_type: 0 };
        let verdict = filter.run(&packet);
        if let Verdict::Deliver(n) = verdict {
            assert!(n <= len);
        }
        if !clocked {
            assert_eq!(filter.clone().run(&packet), verdict, "a run leaves nothing behind");
        }
    }
});
