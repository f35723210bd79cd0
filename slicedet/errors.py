"""Every error and warning that slicedet raises on purpose: one line that names the file and what to do."""


class SlicedetError(Exception):
    """Base of all errors a user can do something about; the command line prints its message and exits with 1."""


class InvalidSetting(SlicedetError, ValueError):
    """An argument has a value that makes no sense, whatever the image."""


class InvalidDetections(SlicedetError, ValueError):
    """Boxes, scores and category ids do not form a set of detections."""


class UnreadableImage(SlicedetError):
    """The file is missing, is no image, or its blocks cannot be decoded."""


class UnreadableWindow(UnreadableImage):
    """One window of an otherwise open image cannot be decoded."""


class EmptyImage(SlicedetError):
    """The image has no valid pixel where it is to be searched."""


class InvalidBands(SlicedetError):
    """The bands asked for are not in the image, or cannot be shown as RGB."""


class NotGeoreferenced(SlicedetError):
    """Coordinates on the ground are asked of an image that has none."""


class UntransformableCRS(NotGeoreferenced):
    """The image's coordinate reference system has no way to longitude and latitude."""


class InvalidRegion(SlicedetError):
    """The region of interest cannot be read, or does not touch the image."""


class UnknownModel(SlicedetError):
    """No configuration, catalogue entry or plug-in has this name."""


class InvalidConfig(SlicedetError):
    """A model configuration is incomplete or contradicts itself."""


class ModelMismatch(SlicedetError):
    """A weights file does not have the inputs and outputs its configuration states."""


class MissingWeights(SlicedetError):
    """The model is known, but its weights are not here."""


class DownloadError(SlicedetError):
    """A file cannot be had from its source."""


class CorruptFile(SlicedetError):
    """A file is not whole, or is no longer what was downloaded."""


class UnsafeFile(SlicedetError):
    """A file would run code, write outside its folder or fill the disk when read."""


class MissingDependency(SlicedetError):
    """An optional package is needed for what was asked."""


class UnknownCategory(SlicedetError):
    """A class name is not among the detector's categories."""


class InvalidDataset(SlicedetError):
    """Annotations, or the images they belong to, cannot be used as they are."""


class InvalidTraining(SlicedetError):
    """A training cannot begin, go on or be resumed as it was asked for."""


class OutputError(SlicedetError):
    """A result cannot be written where it was asked for."""


class SlicedetWarning(UserWarning):
    """Base of slicedet's warnings: the result stands, but with a restriction the user should know."""


class ModelWarning(SlicedetWarning):
    """What a model says of itself contradicts its graph, another engine than asked for runs it, or nothing is chosen
    for precision "auto"."""


class SceneWarning(SlicedetWarning):
    """An image can be searched, but probably not for what the detector knows."""
