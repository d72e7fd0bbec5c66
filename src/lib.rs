//! Portcullis: an authenticating gateway in front of applications that have no login of their own.
//!
//! The modules stand in the order of dependence: a module uses only modules declared above it,
//! here and at every depth below. [`pipeline`] is the product; everything before it is what it is
//! made of, everything after it is how it is configured, started and reached.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::disallowed_methods
    )
)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests take the time where they stand"
    )
)]

pub mod pure;
pub mod refusal;
pub mod record;
pub mod body;
pub mod response;
pub mod deadline;
pub mod scratch;
pub mod observe;
pub mod keys;
pub mod backend;
pub mod session;
pub mod identity;
pub mod cert;
pub mod pages;
pub mod caller;
pub mod whoami;
pub mod pipeline;
pub mod explain;
pub mod config;
pub mod edge;
pub mod boot;
pub mod cli;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
