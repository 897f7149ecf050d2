//! `create`: makes a builder, or changes or takes out a node of one.

use kiln_builder::CreateRequest;
use kiln_cli::printer;

use super::{inspect, say};
use crate::context::{Context, set};
use crate::error::Error;
use crate::flags::Parsed;

pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let world = &context.world;
    let name = flags.word("name").unwrap_or_default();
    let node = flags.word("node").unwrap_or_default();
    let store = world.store()?;
    if flags.switch("leave") {
        return Ok(world.leave(&store, &name, &node)?);
    }
    let config = flags.word("buildkitd-config").or_else(|| flags.word("config"));
    let request = CreateRequest {
        name,
        driver: flags.word("driver").unwrap_or_default(),
        node,
        platforms: flags.list("platform"),
        flags: flags.word("buildkitd-flags").unwrap_or_default(),
        config: config.map(Into::into),
        driver_opts: flags.list("driver-opt"),
        select: flags.switch("use"),
        append: flags.switch("append"),
        endpoint: flags.words.first().cloned().unwrap_or_default(),
        buildkit_host: set("BUILDKIT_HOST").unwrap_or_default(),
    };
    let (mut builder, restart) = context.in_time(world.create(&store, &request)).await??;
    if restart.0 {
        printer::people("WARNING: new settings may not be used until builder is restarted\n");
    }
    // Booting takes long, and nothing is written any more.
    drop(store);
    if flags.switch("bootstrap") {
        let nodes = context.in_time(world.nodes_with_facts(&mut builder)).await??;
        inspect::boot(&nodes).await?;
    }
    say(&format!("{}\n", builder.instance.name))
}
