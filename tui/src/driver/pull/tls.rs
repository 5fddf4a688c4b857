//! Encryption between coordinator and workers: a certificate that the coordinator signs itself and a token that names it, so
//! that neither side needs an authority.

use std::io::Write;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::link::Stream;

/// The name in the certificate; who it is of is told by the token.
const NAME: &str = "deltafront";

/// Who a coordinator is, over all its runs.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// What a worker must know of its coordinator: `SECRET.FINGERPRINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Shows the coordinator that the worker may join.
    pub(crate) secret: String,
    /// Shows the worker that it is its coordinator: the BLAKE3 hash of the certificate.
    fingerprint: String,
}

impl Identity {
    /// The identity in a file that nobody else may read, which is made if it is not there.
    pub(crate) fn keep(path: &Path) -> anyhow::Result<Self> {
        let op = || format!("the coordinator's key {}", path.display());
        if !path.exists() {
            let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).with_context(op)?;
            let text = made.cert.pem() + &made.signing_key.serialize_pem();
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let partial = path.with_extension("partial");
            let _ = std::fs::remove_file(&partial);
            let mut file = options.open(&partial).with_context(op)?;
            file.write_all(text.as_bytes()).with_context(op)?;
            file.sync_all().with_context(op)?;
            std::fs::rename(&partial, path).with_context(op)?;
        }
        let text = std::fs::read(path).with_context(op)?;
        Ok(Self {
            certificate: CertificateDer::from_pem_slice(&text).with_context(op)?,
            key: PrivateKeyDer::from_pem_slice(&text).with_context(op)?,
        })
    }

    /// The token for workers.
    pub(crate) fn token(&self) -> Token {
        let secret = blake3::derive_key("deltafront 2026 secret of workers", self.key.secret_der());
        let secret = blake3::Hash::from_bytes(secret).to_hex();
        Token { secret: secret[..32].to_owned(), fingerprint: fingerprint(&self.certificate) }
    }

    /// Takes connections as this coordinator.
    pub(crate) fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Token {
    /// Whether this is the secret; takes as long for one that is nearly right.
    pub(crate) fn admits(&self, secret: &str) -> bool {
        blake3::hash(self.secret.as_bytes()) == blake3::hash(secret.as_bytes())
    }

    /// What tells this campaign's folder from others; nobody learns the secret by it.
    pub(crate) fn mark(&self) -> String {
        self.fingerprint.clone()
    }

    /// Connects to the coordinator of the token; `plain`: without encryption.
    pub(crate) async fn connect(
        &self,
        address: &str,
        plain: bool,
    ) -> anyhow::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("{address} does not answer"))?;
        stream.set_nodelay(true)?;
        if plain {
            return Ok(Box::new(stream));
        }
        let provider = Arc::new(ring::default_provider());
        let pinned = Pinned { fingerprint: self.fingerprint.clone(), provider: provider.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pinned))
            .with_no_client_auth();
        let name = ServerName::try_from(NAME)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Box::new(stream))
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.secret, self.fingerprint)
    }
}

impl FromStr for Token {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.trim().split_once('.') {
            Some((secret, fingerprint)) if secret.len() == 32 && fingerprint.len() == 64 => {
                Ok(Self { secret: secret.to_owned(), fingerprint: fingerprint.to_owned() })
            }
            _ => bail!(
                "a token has two parts of 32 and 64 digits; `deltafront run --listen` says it"
            ),
        }
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    blake3::hash(certificate).to_hex().to_string()
}

/// Trusts one certificate.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if fingerprint(certificate) == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("who answers is not the coordinator of this token".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
