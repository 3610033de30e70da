//! Small services to try a server with: the handlers that `overfall serve` offers. They know nothing of
//! the command.

mod cgi;
mod echo;
mod either;
mod experiment;
mod hello;
mod program;
mod web;

pub use self::{
    cgi::cgi, echo::Echo, either::either, experiment::Experiment, hello::Hello, program::Program, web::web,
};
