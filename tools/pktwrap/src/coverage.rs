//! Whether a program can be covered: found as a shell would find it, and then only if the dynamic linker will load our
//! library into it. Anything else is refused, never run on the local network.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Interpreters of interpreters followed, as the kernel does.
const SCRIPTS_MOST: usize = 5;
/// Bytes of a `#!` line the kernel looks at.
const LINE_MOST: usize = 256;

/// Why a program is not started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{}: command not found", .0.display())]
    Missing(PathBuf),
    #[error("{}: cannot be executed: {why}", file.display())]
    NotExecutable { file: PathBuf, why: String },
    #[error("{} {why}; pktwrap cannot cover it yet and does not run it on the local network", file.display())]
    NotCovered { file: PathBuf, why: &'static str },
}

impl Refusal {
    /// Exit status, as a shell's or our own.
    pub fn status(&self) -> u8 {
        match self {
            Refusal::Missing(_) => 127,
            Refusal::NotExecutable { .. } => 126,
            Refusal::NotCovered { .. } => 125,
        }
    }
}

/// The file that `program` names, looked up along `path` unless it contains a slash, if it can be covered.
pub fn check(program: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Refusal> {
    let file = find(program, path)?;
    let mut next = file.clone();
    for _ in 0..SCRIPTS_MOST {
        match examine(&next)? {
            Some(interpreter) => next = interpreter,
            None => return Ok(file),
        }
    }
    Err(Refusal::NotExecutable { file, why: "too many levels of #! interpreters".to_owned() })
}

fn find(program: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Refusal> {
    if program.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(program));
    }
    let mut denied = None;
    for folder in std::env::split_paths(path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"))) {
        let candidate =
            if folder.as_os_str().is_empty() { Path::new(".").join(program) } else { folder.join(program) };
        match std::fs::metadata(&candidate) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(meta) if meta.is_file() => denied = Some(candidate),
            Ok(_) | Err(_) => {}
        }
    }
    Err(match denied {
        Some(file) => Refusal::NotExecutable { file, why: "permission denied".to_owned() },
        None => Refusal::Missing(PathBuf::from(program)),
    })
}

/// `None`: a program that can be covered; otherwise the script's interpreter.
fn examine(file: &Path) -> Result<Option<PathBuf>, Refusal> {
    let bad = |why: String| Refusal::NotExecutable { file: file.to_owned(), why };
    let meta = std::fs::metadata(file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Refusal::Missing(file.to_owned()),
        _ => bad(error.to_string()),
    })?;
    if meta.is_dir() {
        return Err(bad("it is a folder".to_owned()));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(bad("permission denied".to_owned()));
    }
    let mut start = Vec::new();
    let open = std::fs::File::open(file).map_err(|error| bad(error.to_string()))?;
    open.take(LINE_MOST as u64).read_to_end(&mut start).map_err(|error| bad(error.to_string()))?;
    if let Some(line) = start.strip_prefix(b"#!") {
        // The bits of a script are ignored by the kernel.
        return interpreter(line).map(Some).ok_or_else(|| bad("bad #! line".to_owned()));
    }
    if !start.starts_with(b"\x7fELF") {
        // A shell runs such a file as a script; execvp does the same.
        return if start.contains(&0) {
            Err(bad("it is not a program for this machine".to_owned()))
        } else {
            Ok(Some(PathBuf::from("/bin/sh")))
        };
    }
    if is_privileged(file, &meta) {
        let why = "runs with privileges of its own (set-user-id or file capabilities), which switches off LD_PRELOAD";
        return Err(Refusal::NotCovered { file: file.to_owned(), why });
    }
    match has_interpreter(file).map_err(bad)? {
        true => Ok(None),
        false => Err(Refusal::NotCovered { file: file.to_owned(), why: "is statically linked" }),
    }
}

fn interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|&b| b == b'\n').next()?;
    let word = line.split(|b| b" \t".contains(b)).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(word.to_vec())))
}

/// Whether the kernel would start it in secure-execution mode: set-id to somebody else, or file capabilities.
fn is_privileged(file: &Path, meta: &std::fs::Metadata) -> bool {
    let mode = meta.permissions().mode();
    let set_user = mode & 0o4000 != 0 && meta.uid() != rustix::process::getuid().as_raw();
    let set_group =
        mode & 0o2000 != 0 && mode & 0o010 != 0 && meta.gid() != rustix::process::getgid().as_raw();
    let mut value = [0u8; 64];
    let capabilities = rustix::fs::getxattr(file, c"security.capability", &mut value[..]).is_ok();
    set_user || set_group || capabilities
}

/// Whether an ELF file of this machine names a dynamic linker.
fn has_interpreter(file: &Path) -> Result<bool, String> {
    use object::elf::{FileHeader64, PT_INTERP};
    use object::endian::Endianness;
    use object::read::elf::{FileHeader, ProgramHeader};

    let open = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let cache = object::ReadCache::new(open);
    let data = &cache;
    let header =
        FileHeader64::<Endianness>::parse(data).map_err(|_| "it is not a 64-bit program".to_owned())?;
    let endian = header.endian().map_err(|error| error.to_string())?;
    let machine = if cfg!(target_arch = "x86_64") { object::elf::EM_X86_64 } else { object::elf::EM_AARCH64 };
    if header.e_machine(endian) != machine {
        return Err("it is a program for another kind of machine".to_owned());
    }
    let segments = header.program_headers(endian, data).map_err(|error| error.to_string())?;
    Ok(segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executable(folder: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let file = folder.join(name);
        std::fs::write(&file, content).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("permissions");
        file
    }

    #[test]
    fn finds_programs_as_a_shell_does() {
        let path = Some(OsStr::new("/nonexistent:/usr/bin:/bin"));
        let found = check(OsStr::new("ls"), path).expect("ls is dynamic");
        assert!(found.ends_with("ls"));
        assert_eq!(check(OsStr::new("no-such-program"), path).expect_err("missing").status(), 127);
        assert_eq!(check(OsStr::new("/no/such"), path).expect_err("missing").status(), 127);
        assert_eq!(check(OsStr::new("/usr"), path).expect_err("folder").status(), 126);
    }

    #[test]
    fn follows_interpreters() {
        let folder = tempfile::tempdir().expect("folder");
        let script = executable(folder.path(), "script", b"#! /bin/sh -e\nexit 0\n", 0o755);
        assert_eq!(check(script.as_os_str(), None), Ok(script.clone()));
        let line = format!("#!{}\n", script.display());
        let outer = executable(folder.path(), "outer", line.as_bytes(), 0o755);
        assert_eq!(check(outer.as_os_str(), None), Ok(outer));
        let looping = folder.path().join("loop");
        let line = format!("#!{}\n", looping.display());
        let looping = executable(folder.path(), "loop", line.as_bytes(), 0o755);
        assert_eq!(check(looping.as_os_str(), None).expect_err("loop").status(), 126);
        let broken = executable(folder.path(), "broken", b"#!/no/such/interpreter\n", 0o755);
        assert_eq!(check(broken.as_os_str(), None).expect_err("no interpreter").status(), 127);
        let plain = executable(folder.path(), "plain", b"echo hello\n", 0o644);
        assert_eq!(check(plain.as_os_str(), None).expect_err("not executable").status(), 126);
    }

    #[test]
    fn refuses_what_the_library_cannot_enter() {
        let folder = tempfile::tempdir().expect("folder");
        // A static program: an ELF header without any segment.
        let mut elf = vec![0u8; 64];
        elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
        elf[16..20].copy_from_slice(&[2, 0, if cfg!(target_arch = "x86_64") { 62 } else { 183 }, 0]);
        elf[20] = 1;
        elf[52] = 64;
        elf[54] = 56;
        let file = executable(folder.path(), "static", &elf, 0o755);
        assert_eq!(check(file.as_os_str(), None).expect_err("static").status(), 125);
        elf[18] = 3;
        let file = executable(folder.path(), "foreign", &elf, 0o755);
        assert_eq!(check(file.as_os_str(), None).expect_err("other machine").status(), 126);
        let file = executable(folder.path(), "cut", &elf[..10], 0o755);
        assert_eq!(check(file.as_os_str(), None).expect_err("cut").status(), 126);
    }
}
