//! The gate against scripted arrivals, in a world whose clock goes when it is told to. It judges the
//! policy, for servers and for balancers, without a single socket.

mod goodput;
mod limits;
mod proxy;
mod random;
mod recovery;
mod scene;
mod timeline;
mod upstream;
mod world;
