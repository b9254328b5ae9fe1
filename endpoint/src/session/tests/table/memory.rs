//! MREAD and MWRITE.

use bytes::Bytes;
use pktlab::vmem::{SocketState, mask, socket as cell, system};
use pktlab::wire::Message;

use super::super::lab::{Lab, START};
use super::{ID, Row, STATES, row, tcp_in};

fn read(addr: u32, len: u16) -> Message {
    Message::MRead { addr, len }
}

fn write(addr: u32, data: &[u8]) -> Message {
    Message::MWrite { addr, data: Bytes::copy_from_slice(data) }
}

pub(super) fn rows() -> Vec<Row> {
    let base = cell::block(ID);
    let time: String = START.to_be_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let open = || tcp_in(SocketState::Open);
    let mut rows = vec![
        row("5.1", "read what is mapped", Lab::new(), read(system::TRANSSUP, 4))
            .says(&["memory 10000002 00000006"]),
        row("5.1", "read the clock", Lab::new(), read(system::TIME, 8))
            .says(&[&format!("memory 10010000 {time}")]),
        row("5.1", "read what is not mapped", Lab::new(), read(0x7000_0000, 3))
            .says(&["memory 70000000 000000"]),
        row("5.1", "read a monitor's memory", Lab::new(), read(0x4000_0000, 2))
            .says(&["memory 40000000 0000"]),
        row("5.1", "read from a hole into a region", Lab::new(), read(system::IP4LS - 1, 3))
            .says(&["memory 100000ff 00c000"]),
        row("5.1", "read the last bytes", Lab::new(), read(0xffff_fffd, 2)).says(&["memory fffffffd 0000"]),
        row("5.1", "write what is not mapped", Lab::new(), write(0x7000_0000, &[1])).answers(0),
        row("5.1", "write what is read-only", Lab::new(), write(system::BUFMAX, &[0; 4]))
            .answers(0)
            .memory(system::BUFMAX, &100_000u32.to_be_bytes()),
        row("5.1", "write nothing", Lab::new(), write(system::BUFMAX, &[])).answers(0),
        row("5.1", "write a whole field", open(), write(base + cell::RBUFSZ, &[0, 0, 1, 0]))
            .answers(0)
            .cell(cell::RBUFSZ, &[0, 0, 1, 0]),
        row("5.1", "write a part of a field", open(), write(base + cell::RBUFSZ + 2, &[1]))
            .answers(0)
            .cell(cell::RBUFSZ, &[0, 0, 1, 100]),
        row("5.1", "write an unaligned field", open(), write(base + cell::NSENDERR, &[9, 8, 7]))
            .answers(0)
            .cell(cell::NSENDERR, &[9, 8, 7]),
        row("5.1", "write the scratch bytes", open(), write(base + cell::CTFL, &[5; 0x80]))
            .answers(0)
            .cell(cell::CTFL, &[5; 0x80]),
        row("5.1", "clear a mask", masked(), write(base + cell::NOTIFMASK, &[0, 0]))
            .says(&["data held", "result 0x0"])
            .cell(cell::NOTIFMASK, &[0, 0]),
    ];
    for (name, offset, len) in [
        ("FAMILY to STAT", cell::FAMILY, 3),
        ("LADDR to RPORT", cell::LADDR, 0x24),
        ("RBUFUSED", cell::RBUFUSED, 4),
        ("DROPSTAT", cell::DROP_BYTES, 8),
    ] {
        let mut lab = open();
        let before = lab.cell(ID, offset, len);
        let asked = write(base + offset, &vec![0xee; usize::from(len)]);
        rows.push(row("5.1", format!("write {name}"), lab, asked).answers(0).cell(offset, &before));
    }
    for state in STATES {
        let sticks = state != SocketState::Free && !state.is_error();
        let asked = write(base + cell::CTFL, &[7]);
        let row = row("5.1", format!("write to a block that is {state:?}"), tcp_in(state), asked);
        rows.push(row.answers(0).state(state).cell(cell::CTFL, &[if sticks { 7 } else { 0 }]));
    }
    rows
}

fn masked() -> Lab {
    let mut lab = tcp_in(SocketState::Open);
    lab.set_mask(ID, mask::NDATA);
    lab.world.reads.push_back(Ok(b"held".to_vec()));
    lab.readable(ID);
    lab
}
