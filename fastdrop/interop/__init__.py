"""Work together with other packages; each module here imports the one it is named after."""
