//! LLBBridge: frontends and clients that drive a build step by step.
