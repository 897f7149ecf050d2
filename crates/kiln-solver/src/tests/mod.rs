//! Tests of the scheduler, without a runtime (`world.rs`), and of the driver.

mod cache;
mod driver;
mod jobs;
mod random;
mod show;
mod world;
