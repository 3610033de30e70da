//! Who a server is: a certificate and its key, from files that may change while it runs. It knows no
//! connection.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::stream::Stream;
use crate::error::{Error, Result};

/// A certificate with its key, for a server whose connections are encrypted.
///
/// TLS 1.3 and 1.2, as rustls has them with its defaults: a client that comes again resumes its session
/// without a full handshake. Clients need no certificate. Clones share the same certificate.
///
/// ```no_run
/// use overfall::{Server, Tls, http};
///
/// let tls = Tls::from_files("chain.pem", "key.pem")?;
/// let server = Server::builder().bind("0.0.0.0:8443").tls(tls.clone());
/// let handle = http::serve(server, |_: &http::Request<'_>| http::Response::text("Hello, client!"))?;
/// // When the files were renewed; a failure changes nothing.
/// tls.reload()?;
/// handle.join()?;
/// # Ok::<(), overfall::Error>(())
/// ```
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    identity: Arc<Identity>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What is shown to new clients.
#[derive(Debug)]
struct Identity(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

impl Tls {
    /// The certificate, followed by those between it and its root, and its private key (PKCS #8, PKCS #1 or
    /// SEC 1), both in PEM. One file may have both.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or has nothing of that kind; or the key is not the certificate's.
    pub fn from_files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self> {
        let files = Files { certificate: certificate.as_ref().into(), key: key.as_ref().into() };
        let identity = Arc::new(Identity(RwLock::new(Arc::new(files.read()?))));
        Ok(Self { files: Arc::new(files), identity })
    }

    /// Reads the files again. Connections that are there stay as they are.
    ///
    /// # Errors
    ///
    /// Those of [`from_files`](Self::from_files); the certificate stays what it was then.
    pub fn reload(&self) -> Result<()> {
        let read = Arc::new(self.files.read()?);
        *self.identity.0.write() = read;
        Ok(())
    }

    /// Shows the other one's certificate from now on.
    pub(crate) fn adopt(&self, other: &Self) {
        let theirs = Arc::clone(&other.identity.0.read());
        *self.identity.0.write() = theirs;
    }

    /// What accepts connections of clients that are to speak one of these protocols, where they say which
    /// they speak (ALPN, RFC 7301).
    pub(crate) fn acceptor(&self, protocols: &[&[u8]]) -> Result<Acceptor> {
        let failed = |error: rustls::Error| Error::start("TLS", io::Error::other(error));
        let builder = ServerConfig::builder_with_provider(ring::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
        let resolver = Arc::<Identity>::clone(&self.identity);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // Sessions are resumed from what clients keep: nothing is kept here for them.
        config.ticketer = ring::Ticketer::new().map_err(failed)?;
        Ok(Acceptor(Arc::new(config)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Files {
    fn read(&self) -> Result<CertifiedKey> {
        let chain = self.certificates()?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            wrong("tls_key", &self.key, &error, "the certificate's private key, not encrypted")
        })?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
            let (key, certificate) = (self.key.display(), self.certificate.display());
            let sentence = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("the key in {key} is not that of the first certificate in {certificate}")
                }
                error => {
                    format!("the key in {key} cannot be used with the certificate in {certificate}: {error}")
                }
            };
            Error::identity(sentence)
        })
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let right = "the certificate, followed by those between it and its root";
        let wrong = |error: &pem::Error| wrong("tls_cert", &self.certificate, error, right);
        let read = CertificateDer::pem_file_iter(&self.certificate).map_err(|error| wrong(&error))?;
        let chain: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
        if chain.is_empty() {
            return Err(wrong(&pem::Error::NoItemsFound));
        }
        Ok(chain)
    }
}

/// What is wrong with a file, and what it may be.
fn wrong(name: &'static str, path: &Path, error: &pem::Error, right: &str) -> Error {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "nothing of that kind is in it".to_owned(),
        error => error.to_string(),
    };
    Error::setting(name, path.display(), format!("a file in PEM with {right} ({why})"))
}

/// Accepts encrypted connections.
#[derive(Debug, Clone)]
pub(crate) struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    pub(crate) fn accept(&self) -> rustix::io::Result<Stream> {
        Stream::new(Arc::clone(&self.0))
    }
}
