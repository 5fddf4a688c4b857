//! A connection between a coordinator and a pull worker: messages as JSON and files, each way, until one side is gone.
//!
//! A message is four bytes of its length, big-endian, and JSON. One that says [`Sent::File`] is followed by the bytes of that
//! file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes of a message: far above any that there is reason to write, far below what hurts.
const MESSAGE_BYTES: u32 = 64 << 20;
/// Bytes of the first message, which somebody sends whom nobody knows yet.
const FIRST_BYTES: u32 = 64 << 10;
/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);
/// How long the last messages may take to leave.
const LAST: Duration = Duration::from_secs(5);

/// A connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What is on the line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sent<M> {
    /// A message of one side to the other.
    Message(M),
    /// A file follows.
    File {
        /// Its name, without a folder.
        name: String,
        /// Its length.
        bytes: u64,
    },
}

/// What is to be sent, in this order.
#[derive(Debug)]
pub(crate) enum Parcel<M> {
    Message(M),
    /// A file, under its own name; one that is not there is passed over.
    File(PathBuf),
}

/// What has come.
#[derive(Debug)]
pub(crate) enum Arrived<M> {
    Message(M),
    /// A file lies in the folder for them.
    File(PathBuf),
    /// Nothing more comes.
    Gone,
}

/// The sending side of a connection. Dropping it ends the connection.
pub(crate) struct Link<M> {
    parcels: Option<mpsc::UnboundedSender<Parcel<M>>>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl<M: Serialize + Send + 'static> Link<M> {
    /// Begins to send and to listen; files that come are put in the folder.
    pub(crate) fn open<S: Stream + 'static, T: DeserializeOwned + Send + 'static>(
        stream: S,
        folder: Option<PathBuf>,
        mut hear: impl FnMut(Arrived<T>) + Send + 'static,
    ) -> Self {
        let (mut input, mut output) = tokio::io::split(stream);
        let (parcels, mut waiting) = mpsc::unbounded_channel();
        let writer = tokio::spawn(async move {
            while let Some(parcel) = waiting.recv().await {
                if send(&mut output, parcel).await.is_err() {
                    break;
                }
            }
            let _ = output.shutdown().await;
        });
        let reader = tokio::spawn(async move {
            while let Ok(arrived) = receive(&mut input, folder.as_deref()).await {
                hear(arrived);
            }
            hear(Arrived::Gone);
        });
        Self { parcels: Some(parcels), writer, reader }
    }

    /// Sends a message, as far as the other side is there.
    pub(crate) fn send(&self, message: M) {
        self.post(Parcel::Message(message));
    }

    pub(crate) fn post(&self, parcel: Parcel<M>) {
        if let Some(parcels) = &self.parcels {
            let _ = parcels.send(parcel);
        }
    }

    /// Ends the connection once what was sent has left.
    pub(crate) async fn close(mut self) {
        self.parcels = None;
        let _ = tokio::time::timeout(LAST, &mut self.writer).await;
    }
}

impl<M> Drop for Link<M> {
    fn drop(&mut self) {
        self.writer.abort();
        self.reader.abort();
    }
}

/// Sends the first message of a connection.
pub(crate) async fn introduce<M: Serialize>(
    stream: &mut impl Stream,
    message: M,
) -> anyhow::Result<()> {
    send(stream, Parcel::Message(message)).await
}

/// Hears the first message of a connection.
pub(crate) async fn first<T: DeserializeOwned>(stream: &mut impl Stream) -> anyhow::Result<T> {
    let sent = tokio::time::timeout(FIRST, head(stream, FIRST_BYTES));
    match sent.await.context("nothing was said")?? {
        Sent::Message(message) => Ok(message),
        Sent::File { .. } => bail!("a file is no introduction"),
    }
}

async fn send<M: Serialize>(
    output: &mut (impl AsyncWrite + Unpin),
    parcel: Parcel<M>,
) -> anyhow::Result<()> {
    match parcel {
        Parcel::Message(message) => {
            let bytes = framed(&Sent::Message(message))?;
            output.write_all(&bytes).await?;
        }
        Parcel::File(path) => {
            let Ok(file) = File::open(&path).await else { return Ok(()) };
            let bytes = file.metadata().await?.len();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.context("a file's name must be Unicode")?.to_owned();
            let head = framed(&Sent::<M>::File { name, bytes })?;
            output.write_all(&head).await?;
            let copied = tokio::io::copy(&mut file.take(bytes), output).await?;
            if copied != bytes {
                bail!("{} became shorter while it was sent", path.display());
            }
        }
    }
    output.flush().await?;
    Ok(())
}

/// A message as it is on the line.
fn framed<M: Serialize>(sent: &Sent<M>) -> anyhow::Result<Vec<u8>> {
    let json = serde_json::to_vec(sent)?;
    let length = u32::try_from(json.len())?;
    Ok([&length.to_be_bytes(), json.as_slice()].concat())
}

async fn head<T: DeserializeOwned>(
    input: &mut (impl AsyncRead + Unpin),
    most: u32,
) -> anyhow::Result<Sent<T>> {
    let length = input.read_u32().await?;
    if length > most {
        bail!("a message of {length} bytes is too long");
    }
    let mut json = vec![0; length as usize];
    input.read_exact(&mut json).await?;
    Ok(serde_json::from_slice(&json)?)
}

async fn receive<T: DeserializeOwned>(
    input: &mut (impl AsyncRead + Unpin),
    folder: Option<&Path>,
) -> anyhow::Result<Arrived<T>> {
    let (name, bytes) = match head(input, MESSAGE_BYTES).await? {
        Sent::Message(message) => return Ok(Arrived::Message(message)),
        Sent::File { name, bytes } => (name, bytes),
    };
    let folder = folder.context("no file is expected")?;
    if name.starts_with('.') || name.contains(['/', '\\']) {
        bail!("`{name}` is no name of a checkpoint");
    }
    // A reader, or a later life after a crash, never sees half a file.
    let partial = folder.join(format!("{name}.{}.partial", std::process::id()));
    let mut file = File::create(&partial).await?;
    let copied = tokio::io::copy(&mut input.take(bytes), &mut file).await;
    let written = match copied {
        Ok(copied) if copied == bytes => file.sync_all().await,
        Ok(_) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        Err(error) => Err(error),
    };
    let path = folder.join(name);
    let kept = match written {
        Ok(()) => tokio::fs::rename(&partial, &path).await,
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        let _ = tokio::fs::remove_file(&partial).await;
        return Err(error.into());
    }
    Ok(Arrived::File(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_and_files_arrive_whole_and_in_order() {
        let folder = std::env::temp_dir().join(format!("deltafront-link-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        for folder in [&from, &to] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|i| i as u8).collect();
        std::fs::write(from.join("a.safetensors"), &bytes).expect("a file");
        let (near, far) = tokio::io::duplex(1000);
        let (sender, mut arrived) = mpsc::unbounded_channel();
        let _far = Link::<u32>::open(far, Some(to.clone()), move |what: Arrived<u32>| {
            let _ = sender.send(what);
        });
        let near = Link::<u32>::open(near, None, |_: Arrived<u32>| {});
        near.send(1);
        near.post(Parcel::File(from.join("a.safetensors")));
        near.post(Parcel::File(from.join("not there")));
        near.send(2);
        near.close().await;
        let mut next = async || arrived.recv().await.expect("it goes on");
        assert!(matches!(next().await, Arrived::Message(1)));
        assert!(matches!(next().await, Arrived::File(path) if path == to.join("a.safetensors")));
        assert!(matches!(next().await, Arrived::Message(2)));
        assert!(matches!(next().await, Arrived::Gone));
        assert_eq!(std::fs::read(to.join("a.safetensors")).expect("a file"), bytes);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_connection() {
        let (mut near, mut far) = tokio::io::duplex(1000);
        near.write_all(&[255; 100]).await.expect("room");
        assert!(first::<u32>(&mut far).await.is_err());
        near.write_all(b"\0\0\0\x27{\"file\":{\"name\":\"../up\",\"bytes\":3}}...")
            .await
            .expect("room");
        let folder = std::env::temp_dir();
        assert!(receive::<u32>(&mut far, Some(&folder)).await.is_err());
    }
}
