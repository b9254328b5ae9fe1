//! How fast messages go through reader and writer, against bare bytes on the same loopback TCP in the same run.
//!
//! `cargo run --release -p pktlab --example stream_rate [MIB]`; the last line is one JSON object.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pktlab::cert::{Mode, ephemeral};
use pktlab::session::{Acceptor, ClientConfig, Entry, Identity, connect};
use pktlab::wire::{Encoded, Frame, MAX_BODY, Message, MessageReader, MessageWriter, NData, Proto};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const REPEATS: usize = 5;
const MIB: usize = 1 << 20;

fn message(len: usize) -> Message {
    let data = Bytes::from(vec![0x5A; len]);
    Message::NData(NData { socket: 1, family: 4, proto: Proto::Tcp, time: 0, remote: None, data })
}

/// Payload bytes received until the end of the stream.
async fn receive<R: AsyncRead + Unpin>(mut reader: MessageReader<R>) -> Result<usize, Failure> {
    let mut bytes = 0;
    while let Some(frame) = reader.next().await? {
        if let Frame::Message(Message::NData(m)) = frame {
            bytes += m.data.len();
        }
    }
    Ok(bytes)
}

async fn transmit<W: AsyncWrite + Unpin>(
    mut writer: MessageWriter<W>,
    len: usize,
    total: usize,
    batch: usize,
) -> Result<(), Failure> {
    writer.set_batching(batch > 1);
    let message = message(len);
    let mut sent = 0;
    while sent < total {
        let encoded: Vec<Encoded> = (0..batch).map(|_| message.encode()).collect::<Result<_, _>>()?;
        writer.send_batch(&encoded).await?;
        sent += batch * len;
    }
    Ok(writer.shutdown().await?)
}

async fn bare(total: usize) -> Result<usize, Failure> {
    let (near, mut far) = pair().await?;
    let sender = tokio::spawn(async move {
        let (mut near, chunk) = (near, vec![0x5A; 64 * 1024]);
        for _ in 0..total.div_ceil(chunk.len()) {
            near.write_all(&chunk).await?;
        }
        near.shutdown().await
    });
    let (mut chunk, mut bytes) = (vec![0; 64 * 1024], 0);
    loop {
        match far.read(&mut chunk).await? {
            0 => break,
            n => bytes += n,
        }
    }
    sender.await??;
    Ok(bytes)
}

async fn plain(len: usize, total: usize, batch: usize) -> Result<usize, Failure> {
    let (near, far) = pair().await?;
    let sender = tokio::spawn(transmit(MessageWriter::new(near), len, total, batch));
    let bytes = receive(MessageReader::new(far, MAX_BODY)).await?;
    sender.await??;
    Ok(bytes)
}

async fn session(len: usize, total: usize, batch: usize) -> Result<usize, Failure> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() as i64;
    let c = ephemeral(now)?;
    let roots = vec![c.operator.public_key()];
    let client = ClientConfig {
        identity: Some(Identity::new(c.endpoint_key, c.endpoint_chain)?),
        mode: Mode::EndpointAuthController,
        roots: roots.clone(),
        snikey: None,
    };
    let identity = Identity::new(c.controller_key, c.controller_chain)?;
    let mode = Mode::ControllerAuthEndpoint;
    let acceptor = Acceptor::new(vec![Entry { snikey: None, default: true, identity, mode, roots }])?;
    let (near, far) = pair().await?;
    let sender = tokio::spawn(async move {
        let (_reader, writer) = connect(near, &client).await?.split(MAX_BODY);
        transmit(writer, len, total, batch).await
    });
    let (reader, _writer) = acceptor.accept(far).await?.split(MAX_BODY);
    let bytes = receive(reader).await?;
    sender.await??;
    Ok(bytes)
}

async fn pair() -> Result<(TcpStream, TcpStream), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    near.set_nodelay(true)?;
    Ok((near, listener.accept().await?.0))
}

/// MiB/s of payload.
async fn rate(run: impl Future<Output = Result<usize, Failure>>) -> Result<f64, Failure> {
    let start = Instant::now();
    let bytes = run.await?;
    Ok(bytes as f64 / MIB as f64 / start.elapsed().max(Duration::from_micros(1)).as_secs_f64())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let total = std::env::args().nth(1).map_or(Ok(256), |a| a.parse::<usize>())? * MIB;
    let names = ["bare", "plain_64k", "plain_1400", "session_64k", "session_1400", "session_1400_batched"];
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    for _ in 0..REPEATS {
        rates[0].push(rate(bare(total)).await?);
        rates[1].push(rate(plain(65_536, total, 1)).await?);
        rates[2].push(rate(plain(1400, total / 8, 1)).await?);
        rates[3].push(rate(session(65_536, total, 1)).await?);
        rates[4].push(rate(session(1400, total / 8, 1)).await?);
        rates[5].push(rate(session(1400, total / 8, 32)).await?);
    }
    let medians: Vec<f64> = rates.into_iter().map(median).collect();
    for (name, rate) in names.iter().zip(&medians) {
        println!("{name:>22} {rate:8.0} MiB/s {:6.2} of bare", rate / medians[0]);
    }
    let fields: Vec<String> =
        names.iter().zip(&medians).map(|(n, r)| format!("\"{n}_mib_s\":{r:.0}")).collect();
    println!("{{{}}}", fields.join(","));
    Ok(())
}
