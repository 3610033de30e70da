//! Starts a pool: its workers and its acceptor. It knows how a server is put together, and none of its parts.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use super::{
    acceptor::Acceptor, builder::Builder, config::Config, control::Control, drain::Drain, ending::Ending,
    handle::Handle, pool::Pool, queue::queue, reload::InForce, worker,
};
use crate::{
    error::{Error, Result},
    net::listener::Listener,
    session::{
        connection::Connection,
        context::Context,
        handler::{Handler, Next},
        service::Service,
    },
};

impl Builder {
    /// Starts the server with a function that is called when a connection has input, or its client has
    /// ended its side: [`Handler::ready`] of a handler that keeps nothing between calls.
    ///
    /// # Errors
    ///
    /// Those of [`serve_handler`](Self::serve_handler).
    pub fn serve<F>(self, ready: F) -> Result<Handle>
    where
        // Said here as well, so that the types of a closure's arguments need not be.
        F: Fn(&mut Connection<'_>) -> io::Result<Next> + Send + Sync + 'static,
    {
        self.serve_handler(ready)
    }

    /// Starts the server: binds, listens, starts its threads, and returns.
    ///
    /// # Errors
    ///
    /// A setting is out of its range, there is no address, an address cannot be listened on, or
    /// the system denies a thread or a descriptor. Nothing is left running then.
    pub fn serve_handler<H: Handler>(self, handler: H) -> Result<Handle> {
        let (config, listeners) = self.listen()?;
        start(config, listeners, handler)
    }
}

/// Starts a server that runs this handler on a pool of workers.
fn start<H: Handler>(config: Config, listeners: Vec<Listener>, handler: H) -> Result<Handle> {
    let (workers, name) = (config.workers, config.name);
    let refs = listeners.iter().map(Listener::to_ref).collect();
    let acceptor = assemble(&config, listeners, handler)?;
    let pool = Arc::clone(&acceptor.pool);
    let control = Arc::clone(&pool.control);
    let started = (0..workers).try_for_each(|index| {
        let (pool, alive) = (Arc::clone(&pool), control.alive.count());
        spawn_of(name, format!("worker-{index}"), move || worker::run(&pool, index, alive)).map(drop)
    });
    let acceptor = started.and_then(|()| spawn_of(name, "acceptor".into(), move || accept(acceptor)));
    if acceptor.is_err() {
        // Those that did start find that there is nothing to do.
        control.context.stage.cut();
        pool.parked.ready.poller.ring();
    }
    let changed = Arc::clone(&pool);
    let in_force = InForce::new(config, Some(Box::new(move |config| changed.change(config))));
    Ok(Handle::new(refs, control, pool, in_force, acceptor?))
}

/// What the threads of a server have, of which none runs yet.
pub(super) fn assemble<H: Handler>(
    config: &Config,
    listeners: Vec<Listener>,
    handler: H,
) -> Result<Acceptor<H>> {
    let failed = |errno| Error::start("the server", errno);
    let (entry, workers) = (config.entry(H::PROTOCOLS)?, config.workers);
    // Half of the workers may be held, so that the others go on whatever those clients do.
    let context = Arc::new(Context::new(entry, config.timeouts, config.patience, workers, workers / 2));
    let control = Arc::new(Control::new(Arc::clone(&context), config).map_err(failed)?);
    let (entrance, exit) = queue(config.queue);
    let pool = Pool::new(Service::new(handler, context), config, control, exit).map_err(failed)?;
    Ok(Acceptor::new(Arc::new(pool), listeners, entrance))
}

/// Accepts until the server is to shut down, and then shuts it down.
fn accept<H: Handler>(mut acceptor: Acceptor<H>) -> Ending {
    let failed = acceptor.run().err();
    if let Some(errno) = failed {
        tracing::error!(error = %errno, "a listener failed; shutting down");
        acceptor.pool.control.drain();
    }
    let ending = Drain::new(acceptor).run();
    failed.map_or(ending, Ending::ListenerFailed)
}

/// Starts a thread of a server that may have a name: the thread's begins with it, and whatever the thread logs
/// says it, so that neither is taken for that of another server.
fn spawn_of<T: Send + 'static>(
    server: &'static str,
    thread: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    if server.is_empty() {
        return spawn(thread, body);
    }
    spawn(format!("{server}-{thread}"), move || tracing::error_span!("serving", server).in_scope(body))
}

pub(super) fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let what = format!("the thread {name}");
    thread::Builder::new().name(name).spawn(body).map_err(|error| Error::start(what, error))
}
