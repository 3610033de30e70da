//! Who a server is: a certificate and its key, from files that may change while it runs. It knows no
//! connection.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::stream::Stream;
use crate::error::{Error, Result};

/// The longest file that is read; chains of certificates have a few thousand bytes.
const MOST_BYTES: u64 = 1 << 20;

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
        let builder = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
        let resolver = Arc::<Identity>::clone(&self.identity);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // Sessions are resumed from what clients keep: nothing is kept here for them.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(failed)?;
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
        let (chain, key) = (self.chain()?, self.private_key()?);
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
            let (key, certificate) = (self.key.display(), self.certificate.display());
            Error::identity(match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("the key in {key} is not that of the first certificate in {certificate}")
                }
                // So rustls says that it does not know such keys.
                rustls::Error::General(_) => format!(
                    "the key in {key} cannot be used; give one of RSA with 2048 to 8192 bits, of ECDSA with \
                     P-256 or P-384, or of Ed25519"
                ),
                error => {
                    format!("the key in {key} cannot be used with the certificate in {certificate}: {error}")
                }
            })
        })
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        let wrong = |why: String| {
            let right = "a file in PEM with the certificate, followed by those between it and its root";
            Error::setting("tls_cert", self.certificate.display(), format!("{right} ({why})"))
        };
        let text = read(&self.certificate).map_err(|error| wrong(error.to_string()))?;
        let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| wrong(words(&error)))?;
        if chain.is_empty() { Err(wrong(words(&pem::Error::NoItemsFound))) } else { Ok(chain) }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        let wrong = |why: String| {
            let right = "a file in PEM with the certificate's private key, not encrypted";
            Error::setting("tls_key", self.key.display(), format!("{right} ({why})"))
        };
        let text = read(&self.key).map_err(|error| wrong(error.to_string()))?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
            // In PKCS #8 the first line says so, in the others the second (RFC 1421).
            let is_encrypted = text.windows(9).any(|word| word == b"ENCRYPTED");
            wrong(if is_encrypted { "it is encrypted".to_owned() } else { words(&error) })
        })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To wait for what a pipe may bring would keep a server from what else it is told.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_BYTES { Err(io::Error::other("it has more than 1 MiB")) } else { Ok(text) }
}

/// Why there is nothing in a file that was read.
fn words(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "nothing of that kind is in it".into(),
        pem::Error::MissingSectionEnd { .. } => "it ends without the END line of its last part".into(),
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line in it is malformed".into(),
        pem::Error::Base64Decode(_) => "what is between BEGIN and END is no base64".into(),
        error => error.to_string(),
    }
}

/// Accepts encrypted connections.
#[derive(Debug, Clone)]
pub(crate) struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    pub(crate) fn accept(&self) -> rustix::io::Result<Stream> {
        Stream::new(Arc::clone(&self.0))
    }
}
