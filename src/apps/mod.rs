//! Small services to try a server with: the handlers that `overfall serve` offers. They know nothing of
//! the command.

mod echo;
mod experiment;
mod hello;
mod web;

pub use self::{echo::Echo, experiment::Experiment, hello::Hello, web::web};
