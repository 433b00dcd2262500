//! Runs the link model between two TUN devices, one thread for each direction.
