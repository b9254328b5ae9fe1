//! Two processes that do nothing but use the processors.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;

const COUNT: usize = 2;

/// Ended when dropped; they also end by themselves when this program does.
pub struct Hogs(Vec<Child>);

impl Hogs {
    pub fn start() -> Result<Hogs> {
        let mut hogs = Hogs(Vec::new());
        for _ in 0..COUNT {
            let spin = Command::new(std::env::current_exe()?).arg("spin").stdin(Stdio::piped()).spawn()?;
            hogs.0.push(spin);
        }
        // Until the scheduler has found a processor for each.
        std::thread::sleep(Duration::from_millis(300));
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

/// What such a process runs: it spins until its stdin is closed.
pub fn spin() -> ! {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    loop {
        std::hint::spin_loop();
    }
}
