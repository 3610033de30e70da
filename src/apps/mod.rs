//! Small services to try a server with: the handlers that `overfall serve` offers. They know nothing of
//! the command.

mod echo;
mod experiment;
mod hello;
mod program;
mod web;

pub use self::{echo::Echo, experiment::Experiment, hello::Hello, program::Program, web::web};
