//! Builders by name: instances as buildx keeps them, and the drivers that reach or boot their daemons.
