//! Asks the system for punctual wake-ups of the calling thread, as far as it is permitted.

/// Low among real-time priorities: above everything of the host that is not.
const PRIORITY: libc::c_int = 10;
/// How long the thread may run once it is chosen, ns: a short slice is chosen sooner.
const SLICE: u64 = 100_000;

/// `struct sched_attr` of `sched_setattr(2)`, first version.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Real-time scheduling where it is permitted, else a short time slice; timers without slack.
pub fn be_punctual() {
    // SAFETY: takes plain integers and acts on the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread; the parameter lives through the call.
    let real_time =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &parameter) };
    if real_time == 0 {
        return;
    }
    for nice in [-20, 0] {
        let attributes = Attributes {
            size: size_of::<Attributes>() as u32,
            policy: libc::SCHED_OTHER as u32,
            flags: 0,
            nice,
            priority: 0,
            runtime: SLICE,
            deadline: 0,
            period: 0,
        };
        // SAFETY: 0 is the calling thread; the structure has the size it says and lives through the call.
        let sliced = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) };
        if sliced == 0 {
            return;
        }
    }
    tracing::debug!("timed sends have neither real-time scheduling nor a short time slice");
}
