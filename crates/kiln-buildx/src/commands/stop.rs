//! `stop`: stops the daemons of a builder.

use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;

pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let mut builder = context.find(flags.words.first())?;
    let mut result = Ok(());
    for node in context.world.nodes(&mut builder).await? {
        match node.driver {
            Ok(driver) => driver.stop().await?,
            Err(e) => result = Err(e.into()),
        }
    }
    result
}
