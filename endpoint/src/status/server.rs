//! Answers at the status socket: one JSON object a connection, then the end.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use super::Board;

/// For one answer; whoever asks and does not read does not keep others from asking.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Pause after an accept failed, which is for want of descriptors.
const RETRY: Duration = Duration::from_millis(200);

/// The socket; its file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens at `path`, for this user only. A socket that a dead endpoint left is replaced.
    pub fn bind(path: &Path) -> anyhow::Result<Server> {
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        remove_stale(path)?;
        let listener = listen(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        Ok(Server { listener, path: path.to_owned() })
    }

    /// Answers for ever.
    pub async fn run(&self, board: &Board) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match tokio::time::timeout(ANSWER_TIME, answer(stream, board)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!("a question about the status went unanswered: {error}"),
                    Err(_) => tracing::debug!("a question about the status went unanswered: nobody read"),
                },
                Err(error) => {
                    tracing::warn!("cannot take a question about the status: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: the next endpoint replaces what is left.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(mut stream: UnixStream, board: &Board) -> io::Result<()> {
    let mut text = serde_json::to_vec(&board.fresh().await)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        Ok(found) if !found.file_type().is_socket() => bail!("{} is in the way: no socket", path.display()),
        Ok(_) => {}
    }
    match unix::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot remove the old {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
        Ok(_) => {
            bail!("another endpoint answers at {}; give this one its own `socket` in [state]", path.display())
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before the bind: the file then has this mode from the first moment on.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(16)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{State, Status, ask};
    use super::*;

    #[tokio::test]
    async fn an_answer_is_one_object_for_the_owner_only() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("new/status.sock");
        let server = Server::bind(&path).expect("bound");
        let mode = fs::metadata(&path).expect("socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let board = Board::new();
        board.state(State::Connecting);
        board.controller("192.0.2.1");
        let asked = tokio::task::spawn_blocking({
            let path = path.clone();
            move || ask(&path)
        });
        let status: Status = tokio::select! {
            () = server.run(&board) => unreachable!(),
            asked = asked => asked.expect("thread").expect("answer"),
        };
        assert_eq!(status, board.status());
        assert_eq!(status.controller.as_deref(), Some("192.0.2.1"));
        drop(server);
        assert!(!path.exists());
        assert!(ask(&path).expect_err("nobody").to_string().contains("no endpoint"));
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("status.sock");
        drop(unix::UnixListener::bind(&path).expect("bound"));
        let living = Server::bind(&path).expect("replaced");
        let error = Server::bind(&path).expect_err("occupied");
        assert!(error.to_string().contains("another endpoint"), "{error}");
        drop(living);
        fs::write(&path, "precious").expect("written");
        assert!(Server::bind(&path).is_err());
        assert_eq!(fs::read(&path).expect("kept"), b"precious");
    }
}
