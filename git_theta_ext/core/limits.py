"""Every limit on what is read from others: sizes, counts and depths, in one place.

Whoever reads a checkpoint, a manifest, a parameter file or a setting checks these before it
allocates or goes on. A container that is past a limit is kept as opaque bytes, so a limit costs
space, never data; a manifest, a parameter file or a setting that is past one is refused. Limits
that a specification sets (axes of a GGUF tensor, payload of a packet) stand with its reader.
`docs/security.md` lists them; a test compares.
"""

from __future__ import annotations

# -- Files and their structure ---------------------------------------------------------------------

STRUCTURE_BYTES = 64 << 20
"""What of a file is no tensor: headers, pickles, directories. With more of it a file is opaque."""
SEGMENTS = 2_000_000
"""Tensors, literals and derived fields of a file."""
AXES = 64
"""Axes of a tensor, where the container has no smaller limit."""
NEIGHBOUR_BYTES = 1 << 31
"""A file that describes the one beside it; a longer one is not read."""
JSON_HEADER_BYTES = 16 << 20
"""Header of a safetensors file: 200,000 tensors; parsed, JSON may take thirty times that."""
NPY_HEADER_BYTES = 1 << 20
"""Header of a NumPy array."""
ZIP_ENTRIES = 1 << 17
"""Entries of a zip archive; a model of 92,000 tensors has as many."""
ZIP_DIRECTORY_BYTES = 48 << 20
"""Central directory of a zip archive."""
SHARD_CHUNKS = 1 << 16
"""Chunks in a shard of Zarr."""
ARRAY_JSON_BYTES = 16 << 20
"""What describes an array of Zarr or N5, or a group of them."""
OCDBT_NODES = 1 << 16
"""Nodes of a B+tree of TensorStore."""
OCDBT_KEYS = 1 << 18
"""Keys of it."""
OCDBT_NODE_BYTES = 64 << 20
"""A node of it, or its manifest, decompressed."""
OCDBT_BYTES = 128 << 20
"""All nodes of it together, and all keys of one."""
DISTCP_ITEMS = 1 << 16
"""Archives in a distributed checkpoint."""
DISTCP_MISSES = 64
"""Places in it that only look like the end of an archive: bytes of a tensor may."""
DISTCP_ENTRIES_MISSED = 1 << 16
"""Entries of archives that end at such places."""
TAR_MEMBERS = 1 << 16
"""Headers of a tar archive."""
TAR_HEADER_BYTES = 1 << 20
"""A pax header, or a long name of GNU tar."""
COREML_RECORDS = 1 << 18
"""Records of a Core ML weight file."""

# -- Pickles ---------------------------------------------------------------------------------------

PICKLE_OPCODES = 4 << 20
"""Two and a half times the largest real pickle seen (6 MB, 1.6 million opcodes)."""
PICKLE_MEMORY = 256 << 20
"""Memory that its values take, by a fixed estimate for each opcode; that pickle takes half."""
PICKLE_INTEGER_BYTES = 1024
"""An integer, in bytes or in digits."""
PICKLE_LINE_BYTES = 1 << 16
"""A line of protocol 0."""
PICKLE_STRING_BYTES = 16 << 20
"""A string in a pickle whose arrays lie in it."""
PICKLES_NESTED = 16
"""Pickles inside each other."""
PICKLE_PATH_STEPS = 16 << 20
"""Steps of the paths to all values of a pickle together, when two pickles are compared."""
PICKLE_VALUES = 4 << 20
"""Values of a pickle, when two pickles are compared."""
NAME_DEPTH = 512
"""Containers inside each other on the way to a tensor."""
NAME_KEY_CHARS = 512
"""A key on that way; a longer one gives no names."""
NAME_CHARS = 4096
"""A tensor's name."""
NAMES = 1 << 20
"""Names of tensors in a pickle, further names of one tensor counted too."""
NAME_WRAPPERS = 8
"""Wrappers (Parameter, subclasses) around one tensor."""

# -- Quantised weights -----------------------------------------------------------------------------

QUANTISED_HELD_BYTES = 256 << 20
"""Tensors of one quantised weight that are held at once, where it cannot be read row by row."""
QUANTISED_SMALL_BYTES = 1 << 16
"""A tensor that says how others were quantised."""

# -- Other containers ------------------------------------------------------------------------------

HDF5_STEPS = 1 << 21
"""Messages, links and children of B-trees of a file together; long texts count for more."""
HDF5_DEPTH = 64
"""Groups inside each other, and levels of a B-tree."""
HDF5_HEADER_BLOCKS = 1 << 10
"""Blocks of one object's header."""
HDF5_NAME_BYTES = 1 << 16
"""Name of a link."""
HDF5_DENSE_DEPTH = 16
"""Levels of the tree of a group with many links."""
ONNX_DEPTH = 32
"""Messages inside each other."""
MESSAGE_FIELDS = 4 << 20
"""Fields of all messages of a protocol buffer: ONNX, MindSpore, Caffe."""
MESSAGE_TEXT_BYTES = 1 << 16
"""A name or a path in one."""
GGUF_TENSORS = 1 << 18
"""Tensors."""
GGUF_PAIRS = 1 << 20
"""Key-value pairs."""
GGUF_ITEMS = 1 << 22
"""Items of all arrays among their values."""
GGUF_TEXT_BYTES = 1 << 26
"""A text."""
GGUF_DEPTH = 4
"""Arrays inside each other."""
FLATBUFFER_STEPS = 1 << 22
"""Tables, fields and vectors that are followed in a TensorFlow Lite file."""
FLATBUFFER_PAGES = 1 << 10
"""Pages of such a file that are held at once."""
FLATBUFFER_TEXT_BYTES = 1 << 16
"""A text of it."""
TFLITE_BUFFERS = 1 << 20
"""Its buffers."""
MSGPACK_VALUES = 1 << 20
"""Values of a msgpack file."""
MSGPACK_DEPTH = 128
"""Its values inside each other."""
MSGPACK_KEY_BYTES = 512
"""Its keys."""
FASTTEXT_WORDS = 1 << 22
"""Words and labels of a fastText model."""
TABLE_BLOCK_BYTES = 64 << 20
"""A block of the index of a TensorFlow checkpoint."""
TABLE_KEY_BYTES = 1 << 16
"""A key of it."""
TABLE_BLOCKS = 1 << 18
"""Its blocks."""
TABLE_BYTES = 256 << 20
"""All its blocks and keys together; prefixes that keys share would else multiply."""

# -- Manifests, parameter files, settings ----------------------------------------------------------

MANIFEST_BYTES = 128 << 20
"""Longest manifest that is read; a checkpoint of ten thousand tensors needs 3 MB."""
MANIFEST_LINES = 4_000_000
"""Its lines."""
RECEIVED_BYTES = 8 << 30
"""Manifests of one push together, as a server's hook reads them: 2,700 of 3 MB."""
RECEIVED_FILES = 2_000_000
"""New files and folders of one push, as a server's hook looks at them."""
CHAIN_LENGTH = 256
"""Parameter files of one block."""
MERGED_SIDES = 32
"""Versions that a block is merged from."""
PARAMETER_HEADER_BYTES = 1 << 20
"""Header of a parameter file."""
ZSTD_WINDOW_BYTES = 1 << 27
"""Memory that a zstd frame may ask for: what the encoder uses at most."""
RANK = 256
"""Rank of a low-rank update."""
WORK_FREE = 30_000_000_000
"""Computing that any command may be asked for, in nominal nanoseconds."""
WORK_PER_VALUE = 4096
"""The same, for each value to be made; the costliest chain that is written takes 2,000."""
WORK_PER_ENCODED = 512
"""The same, for each byte of the objects that it is made of."""
CLAIMED_FREE = 64 << 30
"""Bytes of values that a command reads of nothing, where nobody needs the bytes themselves."""
CLAIMED_PER_ENCODED = 4096
"""The same, for each byte of the objects that they are made of; a block of zeros takes 3,400."""
WHOLE_BLOCK_BYTES = 256 << 20
"""A block: a tensor's have 32 MiB, a structure at most this with all its names."""
SHARD_INDEX_BYTES = 16 << 20
"""Index of shards; that of 671 billion parameters in 163 files has 9 MB."""
TENSORS_FILE_BYTES = 64 << 20
"""`theta_tensors.json` of a release: 200,000 tensors."""
SETTINGS_BYTES = 1 << 20
"""`.theta.toml`."""
SETTINGS_DOTS = 200
"""Dots on a line of it, outside quotes: dotted keys take the square of that."""
RECIPE_PARTS = 1_000
"""Parts of a checkpoint that is assembled."""
RECIPE_LAYERS = 10_000
"""Layers, or experts, that a part of it may stand for."""
RECIPE_PATTERNS = 1_000
"""Patterns with wildcards, and renames, of all its parts."""
RECIPE_TENSORS = 200_000
"""Tensors that are assembled."""
RECIPE_LOCK_BYTES = 64 << 20
"""Lock of a recipe, with a line for each tensor."""
EVALUATIONS = 1_000
"""Evaluations, gates, and modules, that it may declare."""
MODELS = 1_000
"""Models that `models.toml` and `theta.lock` may name."""
LOCK_BYTES = 64 << 20
"""`theta.lock`."""
LOCKED_FILES = 100_000
"""Files of all models that it may name."""
BASE_BYTES = 64 << 20
"""`theta_base.json`; that of 200,000 tensors has 25 MB."""
EXAMPLES = 10_000_000
"""Examples of one task of an evaluation whose outcomes are kept."""
RESULT_BYTES = 16 << 20
"""A result as it is kept, without the outcomes of its examples; 50,000 scores."""
OUTCOMES_BYTES = 128 << 20
"""Those outcomes: a bit for each that is right or wrong, eight bytes for each other."""
RESULT_FILE_BYTES = 256 << 20
"""A file of results that is read as a whole: JSON, YAML."""
RESULT_LINE_BYTES = 16 << 20
"""A line of one that is read line by line: an example with all that was asked and answered."""
RESULT_FILES = 10_000
"""Files that an evaluation leaves behind."""
YAML_DEPTH = 32
"""Lists and mappings inside each other in a YAML file of results."""
RESULTS = 10_000
"""Results of one checkpoint that are read."""
ADAPTER_CONFIG_BYTES = 1 << 20
"""`adapter_config.json`."""
ADAPTER_TENSOR_BYTES = 4 << 30
"""Largest tensor of an adapter: they are held in memory one at a time."""
OPTIMIZER_BOXES = 4096
"""Parts of a tensor in a distributed checkpoint of an optimizer."""
ADAPTER_PATTERN_CHARS = 256
"""A pattern of `alpha_pattern`."""
ADAPTER_PATTERNS = 4096
"""Its patterns."""
ADAPTER_PATTERN_STEPS = 1 << 24
"""Places that are looked at to match all of them with all modules of an adapter."""
PATTERN_STEPS = 300_000
"""Places that are looked at to match it with one name."""
PATTERN_DEPTH = 20
"""Its groups inside each other."""
GLOBS = 10_000
"""Patterns for names that go together: in `.theta.toml`, or what braces of an option stand for."""
GLOB_CHARS = 4096
"""One of them."""
GLOBS_CHARS = 1 << 18
"""All of them."""
GLOB_WORK = 1 << 33
"""Work of matching them with all names, in bits; 92,000 names and 1,000 patterns take half."""
GLOB_STEP_WORK = 1 << 10
"""What each new step of that counts for at least."""
GLOB_PLACE_WORK = 1 << 8
"""What a place that a character leads on from counts for, the first time."""
GLOB_CLASS_WORK = 1 << 11
"""What a class such as `[a-z]` counts for, for each character that it is asked about."""

# -- Patches ---------------------------------------------------------------------------------------

PATCH_HEAD_BYTES = 1 << 16
"""The lines before the pack of a patch: what it needs, and what it holds."""
PATCH_MAIL_BYTES = 16 << 20
"""A patch in a mail, with the mail around it."""
PATCH_OBJECTS = 1 << 20
"""Objects of Git in a patch."""
PATCH_OBJECT_BYTES = 64 << 20
"""One of them that is held in memory: a commit, a folder, a manifest, or a delta."""
PATCH_DELTAS = 64
"""Deltas on each other; Git makes 50."""
PATCH_INFLATED = 256 << 20
"""What all of them may unpack to, whatever the length of the patch."""
PATCH_INFLATED_PER_BYTE = 64
"""The same, for each byte of it."""
PATCH_FILES = 100_000
"""Files that a patch changes."""
