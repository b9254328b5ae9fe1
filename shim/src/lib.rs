//! `libpktwrap.so`: hooks that move a program's network I/O to the `pktwrap` supervisor.
//!
//! Inside a hook: no heap (but what libc itself would allocate for the program), no locks, no threads, errno kept on
//! success. The contract with the supervisor is the crate `pktwrap-link`. Without `PKTWRAP_LINK` in the environment
//! every hook calls the real function; with it, but without a supervisor, IP sockets fail with ENETDOWN.
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "a hook's whole body works on the program's pointers; its contract is that of the libc function"
)]

mod addr;
mod cmsg;
mod hook;
mod hooks;
mod lookup;
mod options;
mod socket;
mod state;
mod sys;
mod tcp;
mod udp;

/// Before `main`: finds the real functions, reads the environment, maps the page.
#[ctor::ctor]
fn start() {
    state::abort_on_panic();
    hooks::control::prepare();
    hooks::io::prepare();
    hooks::files::prepare();
    hooks::resolve::prepare();
    hooks::syscall::prepare();
    state::init();
}
