# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which keys Slurm's configuration files have, in which release, and what a change of them needs.

The names were taken from the option tables that the daemons parse with, in Slurm's own sources (read_config.c of
slurmctld and slurmdbd, cgroup.c, gres.c, the plugins for topology, acct_gather, mpi and job_container), at the last
version of each release. Keys that a release only accepts to say that they are gone don't count as known.
What needs a restart is what slurm.conf(5), gres.conf(5) and scontrol(1) of these releases say.
`tests/integration/test_slurm_config.py` holds the table against the real daemons.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Collection, Mapping

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

__all__ = [
    "FILES",
    "RELEASES",
    "at_least",
    "controller_step",
    "leads",
    "look_up",
    "nearest",
    "needs_slurmd_restart",
    "normal",
    "release_of",
    "repeats",
    "table",
]

RELEASES = ("22.05", "23.02", "23.11", "24.05", "24.11", "25.05")

# From this release on, `scontrol reconfigure` lets the daemons hand over to new processes of themselves.
HANDS_OVER = "23.11"

# `Key>=23.02` is known from that release on, `Key<24.05` was known before that one. Of several keys that begin a line
# of a file the first one that a line has says what it is.
_TABLES = {
    ("slurm.conf", ""): """
        AccountingStorageBackupHost AccountingStorageEnforce AccountingStorageExternalHost AccountingStorageHost
        AccountingStorageLoc AccountingStorageParameters AccountingStoragePass AccountingStoragePort
        AccountingStorageTRES AccountingStorageType AccountingStorageUser AccountingStoreFlags
        AccountingStoreJobComment AcctGatherEnergyType AcctGatherFilesystemType AcctGatherInfinibandType
        AcctGatherInterconnectType AcctGatherNodeFreq AcctGatherProfileType AllowSpecResourcesUsage
        AuthAltParameters AuthAltTypes AuthInfo AuthType BackupAddr BackupController BatchStartTimeout BcastExclude
        BcastParameters BurstBufferParameters BurstBufferType CertgenParameters>=25.05 CertgenType>=25.05
        CertmgrParameters>=24.11 CertmgrType>=24.11 CliFilterPlugins ClusterName CommunicationParameters
        CompleteWait ControlAddr ControlMachine CoreSpecPlugin<24.05 CpuFreqDef CpuFreqGovernors CredType CryptoType
        DataParserParameters>=24.11 DebugFlags DefCPUPerGPU DefMemPerCPU DefMemPerGPU DefMemPerNode
        DependencyParameters DisableRootJobs EioTimeout EnforcePartLimits Epilog EpilogMsgTime EpilogSlurmctld
        EpilogTimeout>=25.05 ExtSensorsFreq<23.11 ExtSensorsType<23.11 FairShareDampeningFactor FastSchedule
        FederationParameters FirstJobId GetEnvTimeout<25.05 GpuFreqDef GresTypes GroupUpdateForce GroupUpdateTime
        HashPlugin>=24.05 HealthCheckInterval HealthCheckNodeState HealthCheckProgram InactiveLimit
        InteractiveStepOptions JobAcctGatherFrequency JobAcctGatherParams JobAcctGatherType JobCompHost JobCompLoc
        JobCompParams JobCompPass JobCompPort JobCompType JobCompUser JobContainerType JobCredentialPrivateKey<23.11
        JobCredentialPublicCertificate<23.11 JobFileAppend JobRequeue JobSubmitPlugins KeepAliveTime KillOnBadExit
        KillWait LaunchParameters LaunchType Licenses LogTimeFormat MailDomain MailProg MaxArraySize
        MaxBatchRequeue>=23.02 MaxDBDMsgs MaxJobCount MaxJobId MaxMemPerCPU MaxMemPerNode MaxNodeCount MaxStepCount
        MaxTasksPerNode MCSParameters MCSPlugin MessageTimeout MinJobAge MpiDefault MpiParams NodeFeaturesPlugins
        OverTimeLimit PluginDir PlugStackConfig PowerParameters<24.05 PowerPlugin<24.05 PreemptExemptTime
        PreemptMode PreemptParameters>=23.02 PreemptType PrEpParameters PrEpPlugins PriorityCalcPeriod
        PriorityDecayHalfLife PriorityFavorSmall PriorityFlags PriorityMaxAge PriorityParameters
        PrioritySiteFactorParameters PrioritySiteFactorPlugin PriorityType PriorityUsageResetPeriod
        PriorityWeightAge PriorityWeightAssoc PriorityWeightFairshare PriorityWeightJobSize PriorityWeightPartition
        PriorityWeightQOS PriorityWeightTRES PrivateData ProctrackType Prolog PrologEpilogTimeout PrologFlags
        PrologSlurmctld PrologTimeout>=25.05 PropagatePrioProcess PropagateResourceLimits
        PropagateResourceLimitsExcept RebootProgram ReconfigFlags RequeueExit RequeueExitHold ResumeFailProgram
        ResumeProgram ResumeRate ResumeTimeout ResvEpilog ResvOverRun ResvProlog ReturnToService RoutePlugin
        SallocDefaultCommand SbcastParameters SchedulerParameters SchedulerTimeSlice SchedulerType ScronParameters
        SelectType SelectTypeParameters SlurmctldAddr SlurmctldDebug SlurmctldHost SlurmctldLogFile
        SlurmctldParameters SlurmctldPidFile SlurmctldPlugstack<23.02 SlurmctldPort SlurmctldPrimaryOffProg
        SlurmctldPrimaryOnProg SlurmctldSyslogDebug SlurmctldTimeout SlurmdDebug SlurmdLogFile SlurmdParameters
        SlurmdPidFile SlurmdPort SlurmdSpoolDir SlurmdSyslogDebug SlurmdTimeout SlurmdUser SlurmSchedLogFile
        SlurmSchedLogLevel SlurmUser SrunEpilog SrunPortRange SrunProlog StateSaveLocation SuspendExcNodes
        SuspendExcParts SuspendExcStates>=23.02 SuspendProgram SuspendRate SuspendTime SuspendTimeout
        SwitchParameters SwitchType TaskEpilog TaskPlugin TaskPluginParam TaskProlog TCPTimeout TLSParameters>=24.05
        TLSType>=24.05 TmpFS TopologyParam TopologyPlugin TrackWCKey TreeWidth UnkillableStepProgram
        UnkillableStepTimeout UsePAM VSizeFactor WaitTime X11Parameters
    """,
    ("slurm.conf", "NodeName"): """
        BcastAddr Boards CoreSpecCount CoresPerSocket CpuBind CPUs CPUSpecList Feature Features Gres MemSpecLimit
        NodeAddr NodeHostname Port Procs RealMemory Reason RestrictedCoresPerGPU>=24.05 Sockets SocketsPerBoard
        State ThreadsPerCore TmpDisk Topology>=25.05 TRESWeights Weight
    """,
    ("slurm.conf", "PartitionName"): """
        AllocNodes AllowAccounts AllowGroups AllowQos Alternate CpuBind Default DefaultTime DefCPUPerGPU
        DefMemPerCPU DefMemPerGPU DefMemPerNode DenyAccounts DenyQos DisableRootJobs ExclusiveTopo>=24.05
        ExclusiveUser GraceTime Hidden LLN MaxCPUsPerNode MaxCPUsPerSocket>=23.02 MaxMemPerCPU MaxMemPerNode
        MaxNodes MaxTime MinNodes Nodes OverSubscribe OverTimeLimit PowerDownOnIdle>=23.02 PreemptMode Priority
        PriorityJobFactor PriorityTier QOS ReqResv ResumeTimeout RootOnly SelectTypeParameters Shared State
        SuspendTime SuspendTimeout Topology>=25.05 TRESBillingWeights
    """,
    ("slurm.conf", "NodeSet"): "Feature Nodes",
    ("slurm.conf", "DownNodes"): "Reason State",
    ("slurmdbd.conf", ""): """
        AllowNoDefAcct AllResourcesAbsolute>=23.02 ArchiveDir ArchiveEvents ArchiveJobs ArchiveResvs ArchiveScript
        ArchiveSteps ArchiveSuspend ArchiveTXN ArchiveUsage AuthAltParameters AuthAltTypes AuthInfo AuthType
        CommitDelay CommunicationParameters DbdAddr DbdBackupHost DbdHost DbdPort DebugFlags DebugLevel
        DebugLevelSyslog DefaultQOS DisableCoordDBD>=24.05 HashPlugin>=24.05 JobPurge LogFile LogTimeFormat
        MaxQueryTimeRange MessageTimeout Parameters PidFile PluginDir PrivateData PurgeEventAfter PurgeEventMonths
        PurgeJobAfter PurgeJobMonths PurgeResvAfter PurgeStepAfter PurgeStepMonths PurgeSuspendAfter
        PurgeSuspendMonths PurgeTXNAfter PurgeTXNMonths PurgeUsageAfter PurgeUsageMonths SlurmUser StepPurge
        StorageBackupHost StorageHost StorageLoc StorageParameters StoragePass StoragePort StorageType StorageUser
        TCPTimeout TLSParameters>=24.05 TLSType>=24.05 TrackSlurmctldDown TrackWCKey
    """,
    ("cgroup.conf", ""): """
        AllowedDevicesFile AllowedKmemSpace<23.11 AllowedRAMSpace AllowedSwapSpace CgroupAutomount<23.11
        CgroupMountpoint CgroupPlugin CgroupReleaseAgentDir ConstrainCores ConstrainDevices ConstrainKmemSpace<23.11
        ConstrainRAMSpace ConstrainSwapSpace EnableControllers>=23.02 EnableExtraControllers>=25.05 IgnoreSystemd
        IgnoreSystemdOnFailure MaxKmemPercent<23.11 MaxRAMPercent MaxSwapPercent MemoryLimitEnforcement
        MemoryLimitThreshold MemorySwappiness MinKmemSpace<23.11 MinRAMSpace RootOwnedCgroups>=23.02<23.11
        SignalChildrenProcesses>=23.11 SystemdTimeout>=24.05
    """,
    ("acct_gather.conf", ""): """
        EnergyIPMIAssumeBmcOwner EnergyIPMIAuthenticationType EnergyIPMIBridgeSensors EnergyIPMICalcAdjustment
        EnergyIPMICipherSuiteId EnergyIPMIDisableAutoProbe EnergyIPMIDiscreteReading EnergyIPMIDriverAddress
        EnergyIPMIDriverDevice EnergyIPMIDriverType EnergyIPMIEntitySensorNames EnergyIPMIFrequency
        EnergyIPMIIgnoreNonInterpretableSensors EnergyIPMIIgnoreScanningDisabled EnergyIPMIInterpretOemData
        EnergyIPMIk_g EnergyIPMIk_g_len EnergyIPMIPassword EnergyIPMIPowerSensors EnergyIPMIPrivilegeLevel
        EnergyIPMIProtocolVersion EnergyIPMIRegisterSpacing EnergyIPMIRereadSdrCache EnergyIPMIRetransmissionTimeout
        EnergyIPMISessionTimeout EnergyIPMISharedSensors EnergyIPMITimeout EnergyIPMIUsername EnergyIPMIVariable
        EnergyIPMIWorkaroundFlags EnergyXCCFake InfinibandOFEDPort InterconnectOFEDPort ProfileHDF5Default
        ProfileHDF5Dir ProfileInfluxDBDatabase ProfileInfluxDBDefault ProfileInfluxDBHost ProfileInfluxDBPass
        ProfileInfluxDBRTPolicy ProfileInfluxDBTimeout>=23.02 ProfileInfluxDBUser SysfsInterfaces
    """,
    ("mpi.conf", ""): """
        PMIxCliTmpDirBase PMIxCollFence PMIxDebug PMIxDirectConn PMIxDirectConnEarly PMIxDirectConnUCX
        PMIxDirectSameArch PMIxEnv PMIxFenceBarrier PMIxNetDevicesUCX PMIxTimeout PMIxTlsUCX
    """,
    ("job_container.conf", "NodeName"): """
        AutoBasePath BasePath CloneNSEpilog>=24.11 CloneNSEpilog_Wait>=24.11 CloneNSScript>=24.11
        CloneNSScript_Wait>=24.11 Dirs>=23.02 EntireStepInNS>=24.11 InitScript Shared>=23.02
    """,
    ("job_container.conf", "BasePath"): """
        AutoBasePath CloneNSEpilog>=24.11 CloneNSEpilog_Wait>=24.11 CloneNSScript>=24.11
        CloneNSScript_Wait>=24.11 Dirs>=23.02 EntireStepInNS>=24.11 InitScript Shared>=23.02
    """,
    ("job_container.conf", "AutoBasePath"): "",
    ("gres.conf", "NodeName"): "AutoDetect Cores Count CPUs File Files Flags Link Links MultipleFiles Name Type",
    ("gres.conf", "Name"): "AutoDetect Cores Count CPUs File Files Flags Link Links MultipleFiles Type",
    ("gres.conf", "AutoDetect"): "",
    ("topology.conf", "SwitchName"): "LinkSpeed Nodes Switches",
    ("topology.conf", "BlockName"): "Nodes>=23.11",
    ("topology.conf", "BlockSizes"): "",
}

FILES = tuple(dict.fromkeys(name for name, _lead in _TABLES))
"""The files that can be written."""

# Keys that may stand on several lines; Prolog and its like from 24.05 on only.
_REPEATED = frozenset({"slurmctldhost"})
_REPEATED_LATER = frozenset({"prolog", "epilog", "prologslurmctld", "epilogslurmctld"})

# Before HANDS_OVER: a plugin is loaded when the daemon starts, so what names one needs that, documented or not.
_PLUGIN = re.compile(r"(type|typeparameters|plugin|plugins)$")
_PLUGIN_DIRECTLY = frozenset({"jobsubmitplugins", "clifilterplugins", "authalttypes"})
_CONTROLLER = """
    accountingstorageenforce accountingstoragehost accountingstorageport accountingstoragetres authinfo clustername
    grestypes maxjobcount maxnodecount plugindir slurmctldhost slurmctldport slurmdport slurmuser statesavelocation"""
_CONTROLLER_RESTART = frozenset(_CONTROLLER.split())
_NODE = """
    acctgatherenergytype acctgatherfilesystemtype acctgatherinterconnecttype acctgatherprofiletype authinfo authtype
    corespecplugin credtype grestypes jobacctgathertype jobcontainertype mpiparams nodefeaturesplugins plugindir
    proctracktype selecttype slurmdport slurmdpidfile slurmdspooldir slurmduser switchtype taskplugin
    taskpluginparam"""
_NODE_RESTART = frozenset(_NODE.split())
# From HANDS_OVER on: what a process that takes over can't change.
_ALWAYS_CONTROLLER = frozenset(
    {"authtype", "credtype", "slurmctldhost", "slurmctldport", "slurmuser", "statesavelocation"}
)
_ALWAYS_NODE = frozenset({"authtype", "credtype", "slurmdport", "slurmdspooldir"})


def normal(key: str) -> str:
    """Return a key as it is compared: `cores_per_socket` is `CoresPerSocket`."""
    return key.replace("_", "").lower()


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def at_least(release: str, other: str) -> bool:
    """Return whether ``release`` is ``other`` or newer."""
    return _number(release) >= _number(other)


def release_of(text: str) -> str:
    """Return the release that is named in ``text``, such as `slurm-wlm 22.05.8`; a newer one counts as the last."""
    match = re.search(r"\b(\d\d\.\d\d)(?:\.\d+)?\b", text)
    if match is None or not at_least(match[1], RELEASES[0]):
        raise HpcError(f"{text.strip()!r} is no release of Slurm that is known.", f"use Slurm {RELEASES[0]} or newer.")
    return max((known for known in RELEASES if at_least(match[1], known)), key=_number)


@functools.cache
def table(name: str, lead: str, release: str) -> Mapping[str, str]:
    """Return the keys of a file (``lead`` is empty) or of its lines that begin with ``lead``, by normal form."""
    found = {}
    for word in _TABLES.get((name, lead), "").split():
        match = re.fullmatch(r"(\w+)(?:>=([\d.]+))?(?:<([\d.]+))?", word)
        if match is None:
            raise ValueError(word)
        if at_least(release, match[2] or RELEASES[0]) and not (match[3] and at_least(release, match[3])):
            found[normal(match[1])] = match[1]
    return found


@functools.cache
def leads(name: str) -> Mapping[str, str]:
    """Return the keys that begin a line of others in a file, by normal form."""
    return {normal(lead): lead for file, lead in _TABLES if file == name and lead}


def look_up(name: str, lead: str, key: str, release: str) -> tuple[str, str]:
    """Return the key as Slurm writes it and nothing, or nothing and what is wrong with it."""
    known = table(name, lead, release)
    wanted = normal(key)
    if wanted in known:
        return known[wanted], ""
    where = f"{lead} of {name}" if lead else name
    others = [other for other in RELEASES if wanted in table(name, lead, other)]
    if others:
        canonical = table(name, lead, others[0])[wanted]
        when = f"has it from {others[0]} on" if at_least(others[0], release) else f"had it until {others[-1]} only"
        return "", f"`{canonical}` is no key of {where} in Slurm {release}, which {when}; remove it."
    near = nearest(key, known.values())
    return "", f"`{key}` is no key of {where} in Slurm {release}; " + (
        f"did you mean `{near}`?" if near else "remove it."
    )


def nearest(key: str, known: Collection[str]) -> str:
    """Return the one of the ``known`` names that ``key`` may be a misspelling of, or nothing."""
    by_form = {normal(name): name for name in known}
    match = difflib.get_close_matches(normal(key), by_form, n=1, cutoff=0.7)
    return by_form[match[0]] if match else ""


def repeats(key: str, release: str) -> bool:
    """Return whether a list of values of this key of slurm.conf becomes several lines, instead of one with commas."""
    return normal(key) in _REPEATED or (normal(key) in _REPEATED_LATER and at_least(release, "24.05"))


def controller_step(name: str, key: str, release: str) -> str:
    """Return what slurmctld needs to notice a change of a key: `reconfigure` or `restart`."""
    form = normal(key)
    if at_least(release, HANDS_OVER):
        return "restart" if name == "slurm.conf" and form in _ALWAYS_CONTROLLER else "reconfigure"
    if name == "gres.conf":
        return "restart"
    plugin = _PLUGIN.search(form) and form not in _PLUGIN_DIRECTLY
    return "restart" if name == "slurm.conf" and (plugin or form in _CONTROLLER_RESTART) else "reconfigure"


def needs_slurmd_restart(name: str, key: str, release: str) -> bool:
    """Return whether a slurmd that runs notices a change of a key only when it is restarted."""
    form = normal(key)
    if at_least(release, HANDS_OVER):
        return name == "slurm.conf" and form in _ALWAYS_NODE
    return name in ("gres.conf", "cgroup.conf", "acct_gather.conf", "mpi.conf", "job_container.conf") or (
        name == "slurm.conf" and form in _NODE_RESTART
    )
