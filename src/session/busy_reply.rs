//! What a refused client is sent, where that is a text that does not depend on the reason. It does not know
//! who is refused.

use std::{borrow::Cow, sync::Arc};

use parking_lot::RwLock;

/// What a refused client is sent. It may be changed while the server runs: its clones share the text.
///
/// ```
/// use overfall::{BusyReply, Server, http::{Http, Request}};
///
/// let busy_reply = BusyReply::default();
/// let answer = |_: &Request<'_>| "Hello!";
/// let server = Server::builder().bind("127.0.0.1:0");
/// let handle = server.serve_handler(Http::new(answer).busy_reply(busy_reply.clone()))?;
/// busy_reply.set(&b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n"[..]);
/// # Ok::<(), overfall::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct BusyReply(Arc<RwLock<Cow<'static, [u8]>>>);

impl BusyReply {
    /// Who is refused from now on is sent this.
    pub fn set(&self, text: impl Into<Cow<'static, [u8]>>) {
        *self.0.write() = text.into();
    }

    /// The text as it is now, for [`Handler::refusal`](crate::Handler::refusal).
    pub fn get(&self) -> Cow<'static, [u8]> {
        self.0.read().clone()
    }
}

impl From<Cow<'static, [u8]>> for BusyReply {
    fn from(text: Cow<'static, [u8]>) -> Self {
        Self(Arc::new(RwLock::new(text)))
    }
}

impl From<Vec<u8>> for BusyReply {
    fn from(text: Vec<u8>) -> Self {
        Cow::from(text).into()
    }
}

impl From<&'static [u8]> for BusyReply {
    fn from(text: &'static [u8]) -> Self {
        Cow::from(text).into()
    }
}
