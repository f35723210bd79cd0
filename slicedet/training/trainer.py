"""The trainer: batches, steps, validation, checkpoints, and the best model exported at the end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import yaml
from paddle import Tensor

from slicedet import export, networks
from slicedet.errors import InvalidConfig, InvalidSetting, InvalidTraining, OutputError
from slicedet.models import catalogue
from slicedet.models import config as model_config
from slicedet.models.config import ModelConfig, OutputConfig
from slicedet.models.pdparams import load_pdparams
from slicedet.networks.heads.distribution import Level
from slicedet.training import checkpoint as checkpoints
from slicedet.training import report
from slicedet.training.averaging import MovingAverage
from slicedet.training.config import TrainingConfig, described
from slicedet.training.frozen import freeze, freeze_norms
from slicedet.training.losses import criterion
from slicedet.training.optimisation import optimizer_for, restore, state_of
from slicedet.training.pretrained import load_pretrained
from slicedet.training.replicas import Replicas, count_for
from slicedet.training.report import Record
from slicedet.training.sampling import Batch, Sampler
from slicedet.training.schedule import Schedule
from slicedet.training.sources import Categories, LabelledImages, read_all
from slicedet.training.validation import Validation

CALIBRATION_TILES = 48

BEST = Path("best_model")


@dataclass(frozen=True)
class Outcome:
    """What a training came to. best, last: records of validations, with step, ap, ap50 and threshold; None without
    validation images. model: the exported folder, and weights: its parameters."""

    output: Path
    steps: int
    best: Record | None
    last: Record | None
    weights: Path
    model: Path


def train(
    config: TrainingConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    listen: Callable[[Record], None] | None = None,
) -> Outcome:
    """Trains a network and leaves in `config.output`: best_model/ (weights, and an export for inference), last.npz to
    resume from, config.yaml, train.log, curves.png and train_result.json.

    resume: go on from the checkpoint in the output folder; the result is that of a training that was never stopped.
    overwrite: begin anew where the folder has the results of another training; not together with a resume, be it of the
    configuration. listen: called with each record of the log.
    Raises InvalidDataset, InvalidTraining (among others where the loss is no longer a number; the last checkpoint
    stays), OutputError, and what loading weights raises.
    """
    parallel = paddle.distributed.ParallelEnv()
    if parallel.world_size > 1:
        paddle.distributed.init_parallel_env()
    # An engine for inference sets the threads of the whole process, on whose number the last bits of a sum depend.
    paddle.base.core.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if resume:
        config = replace(config, resume=config.output / checkpoints.FILE_NAME)
    if config.resume is not None and overwrite:
        raise InvalidTraining(
            f"{config.resume}: resume goes on with a training, overwrite begins anew; choose one (--set resume=null)"
        )
    return Trainer(config, overwrite, listen or (lambda record: None)).run()


class Trainer:
    """One training, prepared; `run` runs it to its end."""

    def __init__(self, config: TrainingConfig, overwrite: bool, listen: Callable[[Record], None]) -> None:
        self.config = config
        self._listen = listen
        self._device = _device(config.device)
        self._rank, self._ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
        if config.batch_size < self._ranks:
            raise InvalidTraining(f"batch_size {config.batch_size}: {self._ranks} processes share it, give each one")
        self._checkpoint_path = config.output / checkpoints.FILE_NAME
        origin = None if config.resume is None else checkpoints.located(config.resume)
        resumed = None if origin is None else checkpoints.load(origin)
        self._goes_on_here = origin is not None and origin.resolve() == self._checkpoint_path.resolve()
        if self._checkpoint_path.exists() and not (self._goes_on_here or overwrite):
            raise OutputError(
                f"{config.output}: holds a training already; go on with it (--resume), begin anew (--overwrite), or "
                "choose another output"
            )
        datasets = read_all(config.train)
        self.categories = Categories.of(datasets, config.train, config.categories, config.ignored)
        self.model = _trained_model(config, self.categories.names)
        images = LabelledImages(datasets, config.train, self.categories, config.cache_mb)
        self.sampler = Sampler(images, config, config.sizes or (self.model.input.size[0],))
        self.steps = config.steps or (config.epochs or 1) * self.sampler.epoch_steps
        self.validation = Validation(config.val, self.categories, config.evaluation, self.model) if config.val else None
        decay = self.steps if config.decay_epochs is None else config.decay_epochs * self.sampler.epoch_steps
        self.schedule = Schedule(config.learning_rate, config.warmup_steps, config.warmup_start, decay)
        self._prepare_network(resumed)

    def _prepare_network(self, resumed: checkpoints.Checkpoint | None) -> None:
        config = self.config
        assert self.model.network is not None  # Said by _trained_model.
        paddle.seed(config.seed)
        self.network = networks.assemble(self.model.network, len(self.model.categories))
        self._average = networks.assemble(self.model.network, len(self.model.categories))
        self.history: list[Record] = []
        self._step = 0
        self._pending: list[dict[str, float]] = []
        self.best: Record | None = None
        if resumed is None and config.pretrained is not None:
            tiles = None
            if config.pretrained.suffix == ".onnx":
                tiles = self.sampler.plain(CALIBRATION_TILES, self.model.input.size[0])
            loaded = load_pretrained(
                self.network, config.pretrained, tiles, _pretrained_classes(config, self.model), self.model.input
            )
            self._note(f"begins with the weights of {loaded.summary()}")
        elif resumed is None:
            self._note("begins with random weights (pretrained is not set)")
        if config.frozen_norms:
            freeze_norms(self.network)
        freeze(self.network, config.frozen_layers)
        self.optimizer = optimizer_for(self.network, config)
        self.average = MovingAverage(self.network, self._average, config.ema_decay)
        mixed = config.amp != "off" and self._device.startswith("gpu")
        self._scaler = paddle.amp.GradScaler(enable=mixed)
        if config.amp != "off" and not mixed:
            self._note(f"amp {config.amp}: {self._device} computes in float32 all the same")
        self._count = config.replicas or count_for(self.network, self._device, config.batch_size // self._ranks)
        if resumed is not None:
            self._restore(resumed)
        epochs = math.ceil(self.steps / self.sampler.epoch_steps)
        static_epochs = max(1, epochs // 10) if config.static_assigner_epoch is None else config.static_assigner_epoch
        self.criterion = criterion(self.network, static_epochs)
        model: Any = self.network
        if self._ranks > 1:
            # Official state dicts have parameters that no network uses.
            model, self._count = paddle.DataParallel(model, find_unused_parameters=True), 1
        self.network.train()
        self._replicas = Replicas(model, self._count)

    def _restore(self, resumed: checkpoints.Checkpoint) -> None:
        path = checkpoints.located(self.config.resume or self.config.output)
        for part, network in (("model", self.network), ("average", self._average)):
            arrays = resumed.arrays.get(part, {})
            checkpoints.require_same(_state(network), arrays, path)
            network.set_state_dict({name: paddle.to_tensor(value) for name, value in arrays.items()})
        if resumed.record["network"] != self._description():
            theirs = ", ".join(resumed.record["network"]["categories"])
            raise InvalidTraining(
                f"{path}: is of another network or of other categories ({theirs}); resume it with its own "
                "configuration, or start from its weights with pretrained"
            )
        self._note(f"goes on with the weights of {path}")
        try:
            restore(self.optimizer, self.network, resumed.arrays.get("optimizer", {}))
            if resumed.record["scaler"]:
                self._scaler.load_state_dict(resumed.record["scaler"])
        except Exception as error:  # Paddle raises whatever it likes.
            raise checkpoints.corrupt(path) from error
        self._count = self.config.replicas or min(resumed.record["replicas"], self.config.batch_size)
        self._step = resumed.record["step"]
        self._pending = list(resumed.record["pending"])
        self.history = list(resumed.record["history"])
        # The best weights lie in the folder that the training began in; without validation, the last are the best.
        self.best = resumed.record["best"] if self._goes_on_here and self.validation is not None else None

    def run(self) -> Outcome:
        """Runs the training to its end; see `train`."""
        cv2.setNumThreads(1)  # The threads that make batches are enough.
        output = self.config.output
        chief = self._rank == 0
        if chief:
            self._begin()
            checkpoints.write(
                # How this run began is no part of the training.
                yaml.safe_dump(
                    described(replace(self.config, resume=None)), sort_keys=False, allow_unicode=True
                ).encode(),
                output / report.CONFIG,
            )
            self._log = report.Log(output / report.LOG, self.history)
        counts = self.sampler.images.counts()
        self._note(
            f"{self.model.name}: {self.steps} steps of {self.config.batch_size} from step {self._step} on "
            f"{self._device}; an epoch is {self.sampler.epoch_steps} steps; "
            + ", ".join(f"{count} {name}" for name, count in zip(self.categories.names, counts, strict=True))
        )
        if self.validation is None:
            self._note(
                "no validation: val is not set, nor has dataset_dir an annotations/instance_val.json; best_model will "
                "hold the last weights"
            )
        self._loop()
        if not chief:
            return self._outcome()
        if self.best is None:
            self._keep_best()
        best: dict[str, Any] = load_pdparams(output / BEST / "best_model.pdparams")
        self._average.set_state_dict(best)
        export.export_network(self._average, self._best_model(), output / BEST / "inference", overwrite=True)
        report.draw_curves(self.history, output / report.CURVES)
        report.write_result(output, self.model.name, self.model.categories, self._last_score(), self.best)
        return self._outcome()

    def _begin(self) -> None:
        """Makes the output folder, and has the first checkpoint replace that of another training. Whatever could be
        wrong with configuration, data and weights has been found by now; nothing else is written before, so that no
        resume takes the one for the other."""
        folder = self.config.output / BEST
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.config.output}: cannot be made: {error.strerror}") from error
        if not self._goes_on_here:
            self._save()

    def _loop(self) -> None:
        config, steps = self.config, self.steps
        every = config.eval_steps or config.eval_interval * self.sampler.epoch_steps
        batches = self.sampler.batches(range(self._step, steps), config.workers, self._rank, self._ranks)
        saved = started = time.monotonic()
        waited = 0.0
        validating = 0.0
        counted = self._step
        while self._step < steps:
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            self._pending.append(self._advance(batch))
            self._step += 1
            last = self._step == steps
            if self._step % config.log_interval == 0 or last:
                now = time.monotonic()
                seconds = (now - started) / (self._step - counted)
                left = (steps - self._step) * seconds + (steps - self._step) // every * validating
                self._add(self._losses(seconds, waited, left))
                started, waited, counted = now, 0.0, self._step
            scored = self.validation is not None and (self._step % every == 0 or last)
            if scored:
                before = time.monotonic()
                self._validate()
                validating = time.monotonic() - before
                started += validating
            if last or scored or time.monotonic() - saved >= config.checkpoint_seconds:
                before = time.monotonic()
                self._save()
                saved = time.monotonic()
                started += saved - before

    def _advance(self, batch: Batch) -> dict[str, float]:
        """One step on a batch; its loss terms."""
        step = self._step
        rate = self.schedule.at(step)
        self.optimizer.set_lr(rate)
        # Dropout, too, is a function of the step.
        paddle.seed(self.config.seed + step * self._ranks + self._rank)
        levels = self._replicas.forward(self._pixels(batch), self._compute)
        terms = self.criterion(levels, batch.boxes, batch.labels, step // self.sampler.epoch_steps)
        values = {name: float(value) for name, value in terms.items()}
        if not math.isfinite(values["loss"]):
            raise self._not_finite("the loss is not a number")
        self._replicas.backward(self._scaler.scale(terms["loss"]), levels)
        try:
            self._scaler.step(self.optimizer)
        except AssertionError as error:  # Paddle looks for the state of a parameter when it first needs it.
            if self.config.resume is None:
                raise
            raise InvalidTraining(
                f"{checkpoints.located(self.config.resume)}: its optimizer is another one, or damaged; resume it with "
                "its own configuration, or start from its weights with pretrained"
            ) from error
        self._scaler.update()
        self.optimizer.clear_grad()
        self.average.update(step)
        return values

    def _compute(self, network: Any, images: Tensor) -> list[Level]:
        if not self._scaler.is_enable():
            return list(network(images))
        with paddle.amp.auto_cast(level="O1"):
            levels = network(images)
        return [(classes.astype("float32"), distances.astype("float32")) for classes, distances in levels]

    def _pixels(self, batch: Batch) -> Tensor:
        """A batch as the network wants it, float32 [B, 3, S, S]; see slicedet.detectors.network.normalised."""
        source = self.model.input
        images = paddle.to_tensor(batch.images).astype("float32").transpose([0, 3, 1, 2])
        if source.channels == "bgr":
            images = images.flip([1])
        mean, std = (paddle.to_tensor(value, "float32").reshape([1, 3, 1, 1]) for value in (source.mean, source.std))
        return (images / source.divide - mean) / std

    def _losses(self, seconds: float, waited: float, left: float) -> Record:
        """The record of the steps since the last one; terms are their means."""
        pending, self._pending = self._pending, []
        if pending[0].keys() != pending[-1].keys():
            # Only those of a checkpoint may be others.
            raise checkpoints.corrupt(self._checkpoint_path)
        names = sorted(pending[-1], key=lambda name: name != "loss")
        return {
            "step": self._step,
            "steps": self.steps,
            "epoch": (self._step - 1) // self.sampler.epoch_steps + 1,
            **{name: float(np.mean([each[name] for each in pending])) for name in names},
            "rate": self.schedule.at(self._step - 1),
            "seconds_per_step": seconds,
            "seconds_waiting_for_data": waited,
            "seconds_left": left,
        }

    def _validate(self) -> None:
        assert self.validation is not None
        if self._rank == 0:
            score = self.validation.score(self._average)
            ap = score.figures.ap
            best = self.best is None or ap > self.best["ap"]
            record = {
                "step": self._step,
                "ap": ap,
                "ap50": score.figures.ap50,
                "threshold": score.threshold,
                "best": best,
            }
            if best:
                self.best = record
                self._keep_best()
            self._add(record)
        if self._ranks > 1:
            paddle.distributed.barrier()

    def _keep_best(self) -> None:
        folder = self.config.output / BEST
        checkpoints.save_pdparams(self._finite(_state(self._average)), folder / "best_model.pdparams")
        stated = model_config.stated(self._best_model(), "best_model.pdparams")
        checkpoints.write(
            yaml.safe_dump(stated, sort_keys=False, allow_unicode=True).encode(),
            folder / catalogue.IN_FOLDER,
        )

    def _best_model(self) -> ModelConfig:
        """The model with the threshold that the validation images suggest, where there are any."""
        return self.model if self.best is None else replace(self.model, threshold=self.best["threshold"])

    def _save(self) -> None:
        if self._rank != 0:
            return
        arrays = {
            "model": self._finite(_state(self.network)),
            "average": _state(self._average),
            "optimizer": state_of(self.optimizer, self.network),
        }
        record = {
            "step": self._step,
            "network": self._description(),
            "replicas": self._count,
            "scaler": _plain(dict(self._scaler.state_dict())),
            "pending": self._pending,
            "best": self.best,
            "history": self.history,
        }
        checkpoints.save(checkpoints.Checkpoint(arrays, record), self._checkpoint_path)

    def _finite(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state, if all of it is numbers: gradients may have run away in a step whose loss was still one."""
        for name, value in state.items():
            if not np.isfinite(value).all():
                raise self._not_finite(f"{name} is not finite")
        return state

    def _not_finite(self, what: str) -> InvalidTraining:
        return InvalidTraining(
            f"step {self._step + 1}: {what}; {self._checkpoint_path} is from before. Lower learning_rate or clip_norm, "
            "or lengthen warmup_steps"
        )

    def _description(self) -> Record:
        return {"categories": list(self.model.categories), "network": self.model.network}

    def _last_score(self) -> Record | None:
        return next((record for record in reversed(self.history) if "ap" in record), None)

    def _add(self, record: Record) -> None:
        """Adds a record to the history that checkpoints keep."""
        if self._rank == 0:
            self.history.append(record)
            self._log.add(record)
            self._listen(record)

    def _note(self, message: str) -> None:
        if self._rank == 0:
            self._listen({"message": message})

    def _outcome(self) -> Outcome:
        folder = self.config.output / BEST
        return Outcome(
            self.config.output,
            self.steps,
            self.best,
            self._last_score(),
            folder / "best_model.pdparams",
            folder / "inference",
        )


def _device(asked: str | None) -> str:
    """The device to train on: by default a GPU where Paddle has one. PaddleX's "gpu:0,1" takes a process for each."""
    gpus = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if asked is None:
        asked = "gpu" if gpus else "cpu"
    elif asked.startswith("gpu") and not gpus:
        raise InvalidSetting(f"device {asked}: Paddle finds no GPU here; --set device=cpu trains on the processor")
    elif "," in asked and paddle.distributed.get_world_size() == 1:
        raise InvalidTraining(
            f"device {asked}: several devices need python -m paddle.distributed.launch, see docs/training.md; "
            f"--set device={asked.partition(',')[0]} takes one"
        )
    if paddle.distributed.get_world_size() > 1 and asked.startswith("gpu"):
        asked = f"gpu:{paddle.distributed.ParallelEnv().device_id}"
    try:
        return str(paddle.set_device(asked)).removeprefix("Place(").removesuffix(")")
    except Exception as error:  # Paddle raises whatever it likes.
        raise InvalidSetting(f"device {asked!r}: this installation of Paddle has no such device") from error


def _trained_model(config: TrainingConfig, categories: tuple[str, ...]) -> ModelConfig:
    """The model that comes out, once trained."""
    base = catalogue.find(config.model)
    if base.network is None or base.nms is None:
        raise InvalidConfig(f"{config.model}: its configuration describes no network that could be trained")
    if config.num_classes not in (None, len(categories)):
        raise InvalidTraining(
            f"num_classes {config.num_classes}: the annotations have {len(categories)} ({', '.join(categories)})"
        )
    name = config.name or f"{base.name}_trained"
    edge = config.input_size or base.input.size[0]
    return ModelConfig(
        name=name,
        title=f"{name}: {base.name}, trained by slicedet train",
        categories=categories,
        input=replace(base.input, size=(edge, edge)),
        output=OutputConfig("boxes-and-scores"),
        nms=base.nms,
        gsd=config.gsd,
        slice=config.evaluation.slice if isinstance(config.evaluation.slice, int) else None,
        network=base.network,
    )


def _pretrained_classes(config: TrainingConfig, model: ModelConfig) -> dict[int, list[int]] | None:
    """For trained classes, those of the pretrained file that they begin as, by their names in the catalogue."""
    if config.pretrained_classes is None:
        return None
    known = catalogue.find(config.model).categories
    classes = {}
    for name, members in config.pretrained_classes.items():
        for member, among in [(name, model.categories), *((member, known) for member in members)]:
            if member not in among:
                raise InvalidTraining(f"pretrained_classes: {member!r} is not among {', '.join(among)}")
        classes[model.categories.index(name)] = [known.index(member) for member in members]
    return classes


def _state(network: networks.Network) -> dict[str, Any]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scaler's state, ready for JSON."""
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in state.items()}
