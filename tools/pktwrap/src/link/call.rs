//! Control calls: the shared page and name resolution.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pktwrap_link::call::{MAX_PAYLOAD, Reply, Request, op};
use pktwrap_link::page::PAGE_BYTES;
use pktwrap_link::{Addr, Plain};

use super::seqpacket::Seqpacket;
use super::{HELLO_TIMEOUT, is_ours};
use crate::context::{Busy, Context};
use crate::resolver::{self, eai};

pub async fn serve(context: Arc<Context>, fd: OwnedFd, _busy: Busy) {
    let socket = match Seqpacket::new(fd) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!("cannot serve a call of the program: {error}"),
    };
    let mut buffer = vec![0; size_of::<Request>() + MAX_PAYLOAD];
    let received = match tokio::time::timeout(HELLO_TIMEOUT, socket.recv(&mut buffer)).await {
        Ok(Ok(n)) => &buffer[..n],
        Ok(Err(_)) | Err(_) => return,
    };
    let Some(request) = Request::from_bytes(received) else { return };
    if !is_ours(&context, request.version, &request.token) {
        return;
    }
    let payload = &received[size_of::<Request>()..];
    let Some(payload) = payload.get(..request.len as usize) else { return };
    let answered = async {
        if request.op == op::PAGE {
            let reply = Reply { args: [PAGE_BYTES as u32, 0, 0, 0], ..Reply::default() };
            return socket.send(&[IoSlice::new(reply.as_bytes())], Some(context.shared.memfd())).await;
        }
        let (mut reply, answer) = answer(&context, &request, payload).await;
        reply.len = answer.len() as u32;
        socket.send(&[IoSlice::new(reply.as_bytes()), IoSlice::new(&answer)], None).await
    };
    if let Err(error) = answered.await {
        tracing::debug!("a call's answer was not taken: {error}");
    }
}

async fn answer(context: &Context, request: &Request, payload: &[u8]) -> (Reply, Vec<u8>) {
    match request.op {
        op::RESOLVE => resolve(context, request, payload).await,
        op::REVERSE => {
            let Some(addr) = Addr::from_bytes(payload).and_then(|addr| addr.to_std()) else {
                return (status(eai::FAMILY), Vec::new());
            };
            match resolver::reverse(context, crate::addr::unmapped(addr).ip()).await {
                Ok(name) => (status(0), name.into_bytes()),
                Err(code) => (status(code), Vec::new()),
            }
        }
        op::QUERY => match resolver::query(context, payload).await {
            Some(answer) => (status(0), answer),
            None => (status(-1), Vec::new()),
        },
        unknown => {
            tracing::warn!(op = unknown, "unknown call");
            (Reply { status: eai::SYSTEM, errno: libc::ENOSYS, ..Reply::default() }, Vec::new())
        }
    }
}

async fn resolve(context: &Context, request: &Request, payload: &[u8]) -> (Reply, Vec<u8>) {
    let Ok(name) = std::str::from_utf8(payload) else { return (status(eai::NONAME), Vec::new()) };
    let families = resolver::Families { v4: request.args[0] != 6, v6: request.args[0] != 4 };
    match resolver::resolve(context, name, families).await {
        Ok(found) => {
            let mut answer = Vec::new();
            for ip in &found.addresses {
                answer.extend_from_slice(Addr::from_std(&(*ip, 0).into()).as_bytes());
            }
            let canonical = if request.args[1] == 1 { found.canonical.as_bytes() } else { &[] };
            answer.extend_from_slice(canonical);
            let reply = Reply {
                args: [found.addresses.len() as u32, canonical.len() as u32, 0, 0],
                ..Reply::default()
            };
            (reply, answer)
        }
        Err(code) => (status(code), Vec::new()),
    }
}

fn status(status: i32) -> Reply {
    Reply { status, ..Reply::default() }
}
