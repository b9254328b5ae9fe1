//! Raw sockets of a real endpoint in the laboratory: real hosts, answers of real kernels.

mod bounds;
mod echo;
mod filters;
mod steal;
mod trace;

/// Whether what needs root of the machine can be tested; says so if not.
fn permitted() -> bool {
    let permitted = system_tests::endpoint::real_root();
    if !permitted {
        println!("skipped: not root of this machine");
    }
    permitted
}
