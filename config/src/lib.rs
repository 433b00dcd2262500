//! Resources, routing tables, the config service and settings
