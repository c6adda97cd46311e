"""What the hosts of the matrix run: apps that track in every phase. They import little, as an app would."""
