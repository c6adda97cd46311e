"""What is hostile or odd: strangers at the sockets, damaged files, full disks, clocks that step, bounds."""
