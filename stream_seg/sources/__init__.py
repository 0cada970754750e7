"""Frame sources behind the stage `capture`: files, images, cameras and streams."""
