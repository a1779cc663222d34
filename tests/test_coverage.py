"""The table of coverage is complete: names, pages, tests and signatures."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastadam
from fastadam import optimizer, optimizer_hooks, serializers

pytestmark = pytest.mark.docs

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
PAGE = DOCS / "coverage.rst"

# What docs/coverage.rst shows: name, page, and a test that would fail if it did something else.
# ``python tests/test_coverage.py`` writes the page anew. The tests are those marked ``smoke``.
TABLES: dict[str, str] = {
    "Adam and its variants": """
Adam algorithms test_chainer_bits.py::test_same_bits
AdamW algorithms test_adam.py::test_formulas
AMSGrad algorithms test_adam.py::test_formulas
AdaBound algorithms test_adam.py::test_formulas
AMSBound algorithms test_adam.py::test_formulas
AdamRule reference test_adam.py::test_arguments_override_and_none_inherits
alpha algorithms test_adam.py::test_setting_has_effect_on_the_next_step
beta1 algorithms test_adam.py::test_setting_has_effect_on_the_next_step
beta2 algorithms test_adam.py::test_setting_has_effect_on_the_next_step
eps algorithms test_adam.py::test_setting_has_effect_on_the_next_step
eta algorithms test_adam.py::test_setting_has_effect_on_the_next_step
weight_decay_rate algorithms test_adam.py::test_setting_has_effect_on_the_next_step
amsgrad algorithms test_adam.py::test_amsgrad_switched_on_late
adabound algorithms test_adam.py::test_adabound_switched_on_late
final_lr algorithms test_adam.py::test_close_in_on_final_lr
gamma algorithms test_adam.py::test_gamma_zero_is_no_bounds
eps_mode algorithms test_adam.py::test_setting_has_effect_on_the_next_step
decay_mode algorithms test_adam.py::test_setting_has_effect_on_the_next_step
alpha_t reference test_adam.py::test_follows_the_current_numbers
lr reference test_adam.py::test_lr_is_deprecated
bounds algorithms test_coefficients.py::test_bounds_are_the_papers_scaled_by_the_schedule
initial_alpha algorithms test_adam.py::test_only_rules_made_with_adabound_have_an_initial_alpha
adam_step quickstart test_step.py::test_same_bits_as_the_optimizer
""",
    "Optimizers": """
setup quickstart test_optimizer.py::test_returns_self_and_sets_the_target
target quickstart test_optimizer.py::test_returns_self_and_sets_the_target
update quickstart test_optimizer.py::test_loss_function
apply_gradients quickstart test_target.py::test_structures
parameters quickstart test_parameter_table.py::test_matching
set_hyperparam quickstart test_adam.py::test_each_hyperparameter
hyperparam own_rules test_adam.py::test_defaults
create_update_rule own_rules test_adam.py::test_created_by_the_optimizer
add_hook hooks test_optimizer.py::test_order_timing_and_arguments
remove_hook hooks test_hooks.py::test_removing_what_is_not_there
call_hooks reference test_chainer_optimizers.py::test_calling_hooks_by_hand
call_hook reference test_chainer_optimizers.py::test_calling_hooks_by_hand
new_epoch reference test_chainer_optimizers.py::test_epochs
use_auto_new_epoch reference test_optimizer.py::test_by_hand_with_the_flag
epoch reference test_optimizer.py::test_counts
t reference test_adam.py::test_optimizer_uses_its_t_and_the_rule_its_own
loss_scaling mixed_precision test_loss_scale.py::test_the_documented_trace
set_loss_scale reference test_chainer_loss_scaling.py::test_static_scales
loss_scale mixed_precision test_loss_scale.py::test_a_static_scale_stays
check_nan_in_grads reference test_loss_scale.py::test_the_steps_of_a_loop_of_ones_own
is_safe_to_update reference test_loss_scale.py::test_it_is_safe_to_update_before_the_first_update
update_loss_scale reference test_loss_scale.py::test_the_steps_of_a_loop_of_ones_own
missing_gradients quickstart test_missing_gradients.py::test_skipped_parameters_are_left_alone
on_nonfinite mixed_precision test_report.py::test_skip_touches_nothing_and_counts
monitor mixed_precision test_report.py::test_looking_changes_no_bit
last_update mixed_precision test_report.py::test_the_norm_beside_float64
UpdateReport mixed_precision test_report.py::test_paths_of_what_is_not_finite
reallocate_cleared_grads own_rules test_optimizer.py::test_overridden_reallocate_leaves_unused_parameters_alone
use_cleargrads reference test_optimizer.py::test_use_cleargrads_is_deprecated_and_chooses_zeros
use_fp32_update mixed_precision test_master.py::test_resumed_equals_uninterrupted
serialize files test_chainer_optimizers.py::test_whole_trainer_snapshot
Optimizer reference test_optimizer.py::test_optimizer_without_gradients
GradientMethod own_rules test_optimizer.py::test_sgd_beside_adam
""",  # noqa: E501
    "Comparisons": """
__eq__ comparisons test_order.py::test_every_part_counts
__ne__ comparisons test_order.py::test_comparisons_are_consistent
__lt__ comparisons test_order.py::test_order_is_by_epoch_then_t
__le__ comparisons test_order.py::test_order_is_by_epoch_then_t
__gt__ comparisons test_order.py::test_order_is_by_epoch_then_t
__ge__ comparisons test_order.py::test_order_is_by_epoch_then_t
__hash__ comparisons test_order.py::test_hash_is_the_class
compare comparisons test_order.py::test_compare_agrees_with_equality
snapshot comparisons test_compare.py::test_a_snapshot_stays_as_it_was
""",
    "Rules and hyperparameters": """
UpdateRule own_rules test_rule.py::test_own_rule_with_state
enabled hooks test_optimizer.py::test_all_disabled
state own_rules test_adam.py::test_state
init_state own_rules test_adam.py::test_own_init_state
update_core own_rules test_own_rules.py::test_a_rule_without_a_core
update_core_cpu own_rules test_rule.py::test_own_rule_with_state
update_core_gpu reference test_rule.py::test_array_that_is_not_on_the_cpu_says_what_to_override
update_core_chainerx reference test_rule.py::test_chainerx_is_refused_in_words
is_elementwise reference test_rule.py::test_fresh_rule
batch_key own_rules test_rule.py::test_update_batch_of_a_users_rule_is_its_update_for_each
Hyperparameter reference test_hyperparameter.py::test_missing_attributes_are_the_nearest_ancestors
get_dict reference test_hyperparameter.py::test_get_dict_overlays_and_is_a_copy
parent reference test_hyperparameter.py::test_parent_is_read_only
HyperparameterProxy own_rules test_hyperparameter.py::test_proxy_gets_and_sets
""",
    "Hooks": """
WeightDecay hooks test_old_program.py::test_with_hooks
Lasso hooks test_old_program.py::test_with_hooks
GradientClipping hooks test_old_program.py::test_clipping_by_norms_in_the_defined_order
GradientHardClipping hooks test_old_program.py::test_with_hooks
GradientNoise hooks test_old_program.py::test_with_hooks
GradientLARS hooks test_old_program.py::test_clipping_by_norms_in_the_defined_order
exponential_decay_noise reference test_old_program.py::test_with_hooks
timing hooks test_optimizer.py::test_order_timing_and_arguments
call_for_each_param hooks test_optimizer.py::test_order_timing_and_arguments
WeightDecay.name hooks test_chainer_surface.py::test_names_of_hooks
WeightDecay.rate reference test_coverage.py::test_hooks_keep_their_arguments
Lasso.rate reference test_coverage.py::test_hooks_keep_their_arguments
GradientClipping.threshold reference test_coverage.py::test_hooks_keep_their_arguments
GradientHardClipping.lower_bound reference test_coverage.py::test_hooks_keep_their_arguments
GradientHardClipping.upper_bound reference test_coverage.py::test_hooks_keep_their_arguments
GradientNoise.eta reference test_coverage.py::test_hooks_keep_their_arguments
GradientNoise.noise_func reference test_coverage.py::test_hooks_keep_their_arguments
GradientLARS.threshold reference test_coverage.py::test_hooks_keep_their_arguments
GradientLARS.weight_decay reference test_coverage.py::test_hooks_keep_their_arguments
GradientLARS.eps reference test_coverage.py::test_hooks_keep_their_arguments
optimizer.WeightDecay reference test_deprecated_hooks.py::test_one_warning_that_points_here
optimizer.Lasso reference test_deprecated_hooks.py::test_one_warning_that_points_here
optimizer.GradientClipping reference test_deprecated_hooks.py::test_one_warning_that_points_here
optimizer.GradientHardClipping reference test_deprecated_hooks.py::test_one_warning_that_points_here
optimizer.GradientNoise reference test_deprecated_hooks.py::test_one_warning_that_points_here
""",
    "Parameters and links": """
Parameter reference test_chainer_links.py::test_addgrad
array reference test_parameter.py::test_array_is_adopted_without_a_copy
data reference test_parameter.py::test_array_is_adopted_without_a_copy
Parameter.shape reference test_parameter.py::test_array_is_adopted_without_a_copy
Parameter.ndim reference test_parameter.py::test_array_is_adopted_without_a_copy
Parameter.size reference test_parameter.py::test_array_is_adopted_without_a_copy
Parameter.name reference test_parameter.py::test_array_is_adopted_without_a_copy
Parameter.xp reference test_parameter.py::test_array_is_adopted_without_a_copy
dtype reference test_parameter.py::test_dtype_of_an_uninitialised_parameter_is_its_initializers
initializer reference test_parameter.py::test_shape_given_fills_array_and_nan_gradient
grad reference test_parameter.py::test_gradient_after_initialize
update_rule own_rules test_target.py::test_rule_of_none_set_by_hand_stays
cleargrad reference test_parameter.py::test_cleargrad_and_grad_setter_end_a_loan
zerograd reference test_parameter.py::test_zerograd_warns_and_fills_in_place
addgrad mixed_precision test_gradients.py::test_adding_gradients_of_any_scales
copydata reference test_parameter.py::test_copydata_copies_in_place
initialize reference test_parameter.py::test_gradient_after_initialize
is_initialized reference test_parameter.py::test_uninitialised_parameter
Link reference test_link.py::test_link_keyword_makes_a_parameter
Chain reference test_link.py::test_chain_children
ChainList reference test_link.py::test_chain_list_is_a_list
ChainList.append reference test_link.py::test_chain_list_is_a_list
ChainList.insert reference test_link.py::test_chain_list_is_a_list
ChainList.extend reference test_link.py::test_chain_list_is_a_list
ChainList.pop reference test_link.py::test_chain_list_is_a_list
ChainList.remove reference test_link.py::test_chain_list_is_a_list
ChainList.clear reference test_link.py::test_chain_list_is_a_list
ChainList.reverse reference test_link.py::test_chain_list_is_a_list
ChainList.index reference test_link.py::test_chain_list_is_a_list
ChainList.count reference test_link.py::test_chain_list_is_a_list
init_scope reference test_link.py::test_init_scope_registers_parameters
within_init_scope reference test_link.py::test_init_scope_registers_parameters
Link.name reference test_link.py::test_chain_children
Link.xp reference test_link.py::test_xp_is_numpy
printable_specs reference test_link.py::test_str_shows_the_tree
add_param reference test_link.py::test_add_param
add_persistent reference test_link.py::test_persistent_values
register_persistent reference test_link.py::test_persistent_values
add_link reference test_link.py::test_chain_refuses_doubles_and_strangers
params reference test_chainer_links.py::test_walks
namedparams reference test_chainer_links.py::test_walks
links reference test_chainer_links.py::test_walks
namedlinks reference test_chainer_links.py::test_walks
children reference test_chainer_links.py::test_walks
cleargrads reference test_link.py::test_cleargrads_and_zerograds
zerograds reference test_link.py::test_cleargrads_and_zerograds
addgrads reference test_link.py::test_addgrads
copyparams reference test_link.py::test_copyparams_copies_values_and_persistents_in_place
enable_update reference test_link.py::test_enabling_and_disabling_updates
disable_update reference test_link.py::test_enabling_and_disabling_updates
update_enabled reference test_link.py::test_enabling_and_disabling_updates
count_params reference test_chainer_links.py::test_count_params
copy departures test_link.py::test_copy_and_init_share_nothing
repeat reference test_link.py::test_repeat
device reference test_device.py::test_the_cpu_is_where_everything_is
to_device reference test_device.py::test_without_cupy_the_extra_to_install_is_named
to_cpu reference test_device.py::test_parameters_old_methods
to_gpu reference test_device.py::test_parameters_old_methods
""",
    "Files": """
save_npz files test_formats.py::test_round_trip
load_npz files test_serialize_optimizer.py::test_ignored_names
NpzDeserializer reference test_formats.py::test_scalars
NpzDeserializer.npz reference test_npz.py::test_deserializer_takes_a_mapping
NpzDeserializer.path reference test_npz.py::test_children_keep_the_settings
NpzDeserializer.strict reference test_npz.py::test_children_keep_the_settings
NpzDeserializer.ignore_names reference test_npz.py::test_children_keep_the_settings
PreparedLoad reference test_all_or_nothing.py::test_two_phases_of_users_classes
DictionarySerializer reference test_dictionary.py::test_paths
DictionarySerializer.target reference test_dictionary.py::test_paths
DictionarySerializer.path reference test_dictionary.py::test_paths
save_hdf5 files test_formats.py::test_every_value_survives_in_a_link
load_hdf5 files test_formats.py::test_not_strict_keeps_what_is_missing
HDF5Serializer files test_hdf5.py::test_serializers_on_a_group
HDF5Serializer.group reference test_hdf5.py::test_serializers_on_a_group
HDF5Serializer.compression reference test_hdf5.py::test_serializers_on_a_group
HDF5Deserializer files test_hdf5.py::test_serializers_on_a_group
HDF5Deserializer.group reference test_hdf5.py::test_serializers_on_a_group
HDF5Deserializer.strict reference test_hdf5.py::test_children_keep_the_settings
Serializer reference test_protocol.py::test_is_deserializer
Serializer.save reference test_protocol.py::test_save_and_load_call_serialize
Deserializer reference test_protocol.py::test_is_deserializer
Deserializer.load reference test_protocol.py::test_save_and_load_call_serialize
AbstractSerializer reference test_protocol.py::test_base_class_does_nothing
""",
}

ROWS = [
    (name, page, *test.split("::"))
    for rows in TABLES.values()
    for name, page, test in map(str.split, rows.strip().splitlines())
]
NAMES = [row[0] for row in ROWS]

# What Chainer 7.8.1 documents: class, and its constructor as inspect.signature prints it.
CONSTRUCTORS: dict[Any, str] = {
    fastadam.Adam: "(alpha=0.001, beta1=0.9, beta2=0.999, eps=1e-08, eta=1.0, "
    "weight_decay_rate=0, amsgrad=False, adabound=False, final_lr=0.1, gamma=0.001)",
    fastadam.AdamW: "(alpha=0.001, beta1=0.9, beta2=0.999, eps=1e-08, eta=1.0, "
    "weight_decay_rate=0)",
    fastadam.AMSGrad: "(alpha=0.001, beta1=0.9, beta2=0.999, eps=1e-08, eta=1.0)",
    fastadam.AdaBound: "(alpha=0.001, beta1=0.9, beta2=0.999, final_lr=0.1, gamma=0.001, "
    "eps=1e-08, eta=1.0)",
    fastadam.AMSBound: "(alpha=0.001, beta1=0.9, beta2=0.999, final_lr=0.1, gamma=0.001, "
    "eps=1e-08, eta=1.0)",
    fastadam.AdamRule: "(parent_hyperparam=None, alpha=None, beta1=None, beta2=None, eps=None, "
    "eta=None, weight_decay_rate=None, amsgrad=None, adabound=None, final_lr=None, gamma=None)",
    fastadam.Hyperparameter: "(parent=None)",
    fastadam.HyperparameterProxy: "(attr_name)",
    fastadam.UpdateRule: "(parent_hyperparam=None)",
    fastadam.Parameter: "(initializer=None, shape=None, name=None)",
    fastadam.Link: "(**params)",
    fastadam.Chain: "(**links)",
    fastadam.ChainList: "(*links)",
    optimizer_hooks.WeightDecay: "(rate)",
    optimizer_hooks.Lasso: "(rate)",
    optimizer_hooks.GradientClipping: "(threshold)",
    optimizer_hooks.GradientHardClipping: "(lower_bound, upper_bound)",
    optimizer_hooks.GradientNoise: "(eta, noise_func=exponential_decay_noise)",
    optimizer_hooks.GradientLARS: "(threshold=0.01, weight_decay=0.0, eps=1e-09)",
    serializers.DictionarySerializer: "(target=None, path='')",
    serializers.NpzDeserializer: "(npz, path='', strict=True, ignore_names=None)",
    serializers.HDF5Serializer: "(group, compression=4)",
    serializers.HDF5Deserializer: "(group, strict=True)",
}

# Methods and functions, with what Chainer lets them be called with.
CALLS: dict[Any, str] = {
    fastadam.Adam.setup: "(self, link)",
    fastadam.Adam.update: "(self, lossfun=None, *args, **kwds)",
    fastadam.Adam.add_hook: "(self, hook, name=None, timing='auto')",
    fastadam.Adam.remove_hook: "(self, name)",
    fastadam.Adam.call_hooks: "(self, timing='pre')",
    fastadam.Adam.call_hook: "(self, hook)",
    fastadam.Adam.create_update_rule: "(self)",
    fastadam.Adam.new_epoch: "(self, auto=False)",
    fastadam.Adam.loss_scaling: "(self, interval=1000, scale=None)",
    fastadam.Adam.set_loss_scale: "(self, loss_scale)",
    fastadam.Adam.check_nan_in_grads: "(self)",
    fastadam.Adam.is_safe_to_update: "(self)",
    fastadam.Adam.update_loss_scale: "(self)",
    fastadam.Adam.reallocate_cleared_grads: "(self)",
    fastadam.Adam.use_cleargrads: "(self, use=True)",
    fastadam.Adam.use_fp32_update: "(self, flag=True)",
    fastadam.Adam.serialize: "(self, serializer)",
    fastadam.UpdateRule.add_hook: "(self, hook, name=None, timing='auto')",
    fastadam.UpdateRule.remove_hook: "(self, name)",
    fastadam.UpdateRule.update: "(self, param)",
    fastadam.UpdateRule.update_core: "(self, param)",
    fastadam.UpdateRule.update_core_cpu: "(self, param)",
    fastadam.UpdateRule.update_core_gpu: "(self, param)",
    fastadam.UpdateRule.init_state: "(self, param)",
    fastadam.UpdateRule.serialize: "(self, serializer)",
    fastadam.UpdateRule.use_fp32_update: "(self, flag=True)",
    fastadam.Link.add_param: "(self, name, shape=None, dtype=<class 'numpy.float32'>, "
    "initializer=None)",
    fastadam.Link.copyparams: "(self, link, copy_persistent=True)",
    fastadam.Link.params: "(self, include_uninit=True)",
    fastadam.Link.namedparams: "(self, include_uninit=True)",
    fastadam.Link.links: "(self, skipself=False)",
    fastadam.Link.namedlinks: "(self, skipself=False)",
    fastadam.Link.copy: "(self, mode='share')",
    serializers.save_npz: "(file, obj, compression=True)",
    serializers.load_npz: "(file, obj, path='', strict=True, ignore_names=None)",
    serializers.save_hdf5: "(filename, obj, compression=4)",
    serializers.load_hdf5: "(filename, obj)",
}

# Attributes, aliases and comparisons of an optimizer.
ATTRIBUTES = (
    *fastadam.Adam().hyperparam.get_dict(),
    *("target", "hyperparam", "alpha_t", "lr", "t", "epoch", "use_auto_new_epoch"),
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"),
)

HOLDERS = (
    fastadam,
    optimizer,
    optimizer_hooks,
    serializers,
    fastadam.AdamRule(),
    fastadam.Adam,
    fastadam.Adam(),
    fastadam.Parameter,
    fastadam.Chain(),
    fastadam.ChainList(),
    fastadam.Hyperparameter(),
    optimizer_hooks.WeightDecay(0),
)
# a hook's arguments, by name
HOOKS: dict[str, dict[str, Any]] = {
    "WeightDecay": {"rate": 0.25},
    "Lasso": {"rate": 0.25},
    "GradientClipping": {"threshold": 0.25},
    "GradientHardClipping": {"lower_bound": -0.25, "upper_bound": 0.5},
    "GradientNoise": {"eta": 0.25, "noise_func": lambda xp, shape, dtype, hook, rule: 0.0},
    "GradientLARS": {"threshold": 0.25, "weight_decay": 0.5, "eps": 0.125},
}
# what the constructors of others need
MADE_WITH: dict[str, Any] = {
    "Parameter": (0.5, (2,)),
    "NpzDeserializer": ({},),
    "HDF5Serializer": (None,),
    "HDF5Deserializer": (None,),
}
# what is there only after a step, or under AdaBound
LATE = {"initial_alpha", "alpha_t", "lr", "bounds"}


def chainers_part(signature: inspect.Signature) -> str:
    """A signature as Chainer has it: without annotations and what is keyword-only here."""
    shown = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            continue
        default = parameter.default
        if inspect.isfunction(default):
            text = f"{parameter.name}={default.__name__}"
        else:
            text = str(parameter.replace(annotation=parameter.empty))
        shown.append(text)
    return f"({', '.join(shown)})"


def test_signatures() -> None:
    documented = CONSTRUCTORS | CALLS
    assert {obj: chainers_part(inspect.signature(obj)) for obj in documented} == documented
    named = [obj for obj in documented if not obj.__qualname__.startswith("UpdateRule.")]
    assert {obj.__name__ for obj in named} <= set(NAMES)


def test_attributes() -> None:
    opt = fastadam.Adam()
    missing = [n for n in ATTRIBUTES if not hasattr(fastadam.Adam, n) and not hasattr(opt, n)]
    assert missing == []
    assert set(ATTRIBUTES) <= set(NAMES)


def test_public_names() -> None:
    helpers = {"is_deserializer", "serialize"}
    for module in (fastadam.optimizers, optimizer_hooks, serializers):
        assert set(module.__all__) - helpers <= set(NAMES)


def test_names_are_in_one_row() -> None:
    assert len(ROWS) > 160
    assert len(NAMES) == len(set(NAMES))


HEAD = """.. list-table::
   :header-rows: 1
   :widths: 28 18 54

   * - Name
     - Page
     - Test
"""


def written(page: str) -> str:
    """The page with the tables as they are here, and with what else it says."""
    before = page.partition(f"\n{next(iter(TABLES))}\n---")[0]
    after = page.partition("\n.. _not-here:\n")[2]
    parts = [before]
    for title, rows in TABLES.items():
        parts.append(f"\n{title}\n{'-' * len(title)}\n\n{HEAD}")
        for name, where, test in map(str.split, rows.strip().splitlines()):
            parts.append(f"   * - ``{name}``\n     - :doc:`{where}`\n     - ``{test}``\n")
    return "".join([*parts, "\n.. _not-here:\n", after])


def test_the_page_is_made_of_the_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "python tests/test_coverage.py writes it anew"


def there(name: str) -> bool:
    """Whether a name of a row exists; one with a dot is that class's or module's."""
    owner, _, last = name.rpartition(".")
    if not owner:
        return name in LATE or any(hasattr(holder, name) for holder in HOLDERS)
    if owner in HOOKS:
        return hasattr(getattr(optimizer_hooks, owner)(**HOOKS[owner]), last)
    (found,) = {vars(holder)[owner] for holder in (fastadam, serializers) if hasattr(holder, owner)}
    return hasattr(found(*MADE_WITH.get(owner, ())) if inspect.isclass(found) else found, last)


SECTION = r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\S+\n-+\n|\Z)"


def reference() -> set[str]:
    """The names that the page of reference shows: entries, their members, described attributes."""
    text = (DOCS / "reference.rst").read_text(encoding="utf-8")
    directive = r"^\.\. auto(class|function|module):: ([\w.]+)\n((?:   :.*\n)*)"
    shown = set()
    for kind, full, options in re.findall(directive, text, re.M):
        module, _, name = full.rpartition(".")
        if kind == "module":
            shown |= set(importlib.import_module(full).__all__)
            continue
        obj = getattr(importlib.import_module(module), name)
        shown.add(name)
        text = inspect.getdoc(obj) or ""
        for section in re.findall(SECTION, text, re.M | re.S):
            shown |= set(re.findall(r"\w+", " ".join(re.findall(r"^\S.*", section, re.M))))
        shown |= set(re.findall(r"``(\w+)``", text))
        if kind == "class" and ":members:" in options:
            inherited = ":inherited-members:" in options
            shown |= {
                attribute
                for attribute in (dir(obj) if inherited else vars(obj))
                if inspect.getdoc(getattr(obj, attribute))
            }
    return shown


REFERENCE = reference()


def test_hooks_keep_their_arguments() -> None:
    for name, arguments in HOOKS.items():
        hook = getattr(optimizer_hooks, name)(**arguments)
        for argument, value in arguments.items():
            assert getattr(hook, argument) is value
            assert f"{name}.{argument}" in NAMES


@functools.cache
def names_in(file: str) -> set[str]:
    """The functions of a file of tests, of which there is one of this name."""
    (path,) = TESTS.rglob(file)
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in tree if isinstance(node, ast.FunctionDef)}


def test_rows(case: Callable[..., Any]) -> None:
    pages = {page: (DOCS / f"{page}.rst").read_text(encoding="utf-8") for _, page, *_ in ROWS}
    for name, page, file, test in ROWS:
        with case(name=name, page=page, file=file, test=test):
            assert there(name)
            last = name.rpartition(".")[2]
            if page == "reference":
                assert last in REFERENCE
            else:
                assert re.search(rf"\b{last}\b", pages[page]) or name.startswith("__")
            assert test in names_in(file)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
