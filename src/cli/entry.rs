//! What connections begin with: a PROXY line, a TLS handshake. It does not know what is served.

use std::{net::IpAddr, path::PathBuf};

use overfall::{Builder, IpNet, Tls};

use super::groups;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = groups::ENTRY)]
pub(super) struct EntryArgs {
    /// Encrypt connections, with the certificate in this file
    ///
    /// TLS 1.2 and 1.3. The file is in PEM, with the certificate followed by those between it and its root;
    /// HUP reads it again.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, a file in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Connections from here begin with a PROXY line
    ///
    /// It is one of the PROXY protocol, version 1 or 2, and says who the client is. FROM is an address such
    /// as 10.1.2.3, or a network such as 10.0.0.0/8; may be repeated.
    #[arg(long, value_name = "FROM", value_parser = network, value_delimiter = ',', hide_short_help = true)]
    accept_proxy: Vec<IpNet>,
}

impl EntryArgs {
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// The server with these settings.
    pub(super) fn apply(&self, builder: Builder) -> overfall::Result<Builder> {
        let builder = self.accept_proxy.iter().fold(builder, |builder, &from| builder.accept_proxy(from));
        match self.tls_cert.as_ref().zip(self.tls_key.as_ref()) {
            Some((certificate, key)) => Ok(builder.tls(Tls::from_files(certificate, key)?)),
            None => Ok(builder),
        }
    }
}

/// An address or a network.
fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        format!("{text:?} is neither an address nor a network, such as 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32")
    })
}
