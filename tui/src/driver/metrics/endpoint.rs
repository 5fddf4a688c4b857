//! Where Prometheus asks: `GET /metrics`, on the loopback unless more is asked for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Served;

/// How long whoever connects may take to say what is wanted.
const PATIENCE: Duration = Duration::from_secs(10);
/// The text format of OpenMetrics.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An address that is listened on, while nothing is served yet.
#[derive(Debug)]
pub(crate) struct Endpoint {
    listener: TcpListener,
    /// Where it is.
    pub(crate) address: SocketAddr,
}

/// What is served; no longer when it is dropped.
#[derive(Debug)]
pub(crate) struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Endpoint {
    /// Listens there; `anywhere`: on other addresses than those of the loopback, too.
    ///
    /// # Errors
    /// When others than this machine could ask though nobody said so, or the address cannot be had.
    pub(crate) async fn open(address: SocketAddr, anywhere: bool) -> anyhow::Result<Self> {
        if !address.ip().is_loopback() && !anywhere {
            bail!(
                "--metrics {address} would let other machines ask, without a password; name 127.0.0.1:{}, or add --metrics-anywhere",
                address.port()
            );
        }
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for --metrics"))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Answers from now on.
    pub(crate) fn serve(self, served: Served) -> Serving {
        Serving(tokio::spawn(async move {
            loop {
                // Too many open files, say: that passes.
                let Ok((stream, _)) = self.listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let served = served.clone();
                let answer = service_fn(move |request| {
                    let response = answer(&request, &served);
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                let connection = http.serve_connection(TokioIo::new(stream), answer);
                // Whoever goes away before the answer is through does not want it.
                tokio::spawn(async move { drop(connection.await) });
            }
        }))
    }
}

fn answer(request: &Request<Incoming>, served: &Served) -> Response<Full<Bytes>> {
    let (status, format, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, FORMAT, served.text()),
        (&Method::GET, "/") => {
            (StatusCode::OK, "text/plain; charset=utf-8", "deltafront: see /metrics\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "see /metrics\n".to_owned()),
    };
    let response = Response::builder().status(status).header(CONTENT_TYPE, format);
    response.body(Full::new(Bytes::from(body))).expect("status and header are valid")
}
