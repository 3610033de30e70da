//! What the figures say, for people and for programs. It measures nothing.

mod charts;
mod document;
mod page;
mod sentences;
mod svg;
mod table;
mod text;
mod words;
