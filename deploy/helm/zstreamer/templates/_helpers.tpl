{{- define "zstreamer.fullname" -}}
{{- if contains "zstreamer" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-zstreamer" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "zstreamer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "zstreamer.selector" . }}
{{- end -}}

{{- define "zstreamer.selector" -}}
app.kubernetes.io/name: zstreamer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "zstreamer.image" -}}
{{- $own := .own | default dict -}}
{{- $image := .root.Values.image -}}
{{- printf "%s:%s" ($own.repository | default $image.repository) ($own.tag | default $image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}

{{/* What every pod of ours has in common. */}}
{{- define "zstreamer.pod" -}}
# A Service of the name zstreamer would set ZSTREAMER_PORT for every pod.
enableServiceLinks: false
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "zstreamer.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "zstreamer.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "zstreamer.selector" .root | nindent 8 }}
        {{- toYaml .labels | nindent 8 }}
{{- end -}}

{{- define "zstreamer.modelName" -}}
{{- . | lower | replace "_" "-" | replace "." "-" | replace "/" "-" | replace "+" "-" -}}
{{- end -}}

{{/* All workers as a JSON list, one element a Deployment: the settings, filled up from models.default
and for a version from its model, and
  model     its name
  version   its version; empty where the model has none
  served    the name that callers and metrics have for it: MODEL or MODEL@VERSION
  object    the name of its Deployment
  labels    what its pods have besides the labels of all workers */}}
{{- define "zstreamer.workers" -}}
{{- $root := . -}}
{{- $full := include "zstreamer.fullname" . -}}
{{- $found := list -}}
{{- $names := dict -}}
{{- range $model, $given := .Values.models -}}
{{- $all := omit (mergeOverwrite (deepCopy $root.Values.models.default) (deepCopy $given)) "versions" -}}
{{- range $version, $own := $given.versions | default (dict "" dict) -}}
{{- $one := mergeOverwrite (deepCopy $all) (deepCopy ($own | default dict)) -}}
{{- if $one.target -}}
{{- $served := ternary $model (printf "%s@%s" $model $version) (empty $version) -}}
{{- $object := printf "%s-worker-%s" $full (include "zstreamer.modelName" $model) -}}
{{- $labels := dict "zstreamer/model" (include "zstreamer.modelName" $model) -}}
{{- if $version -}}
{{- $object = printf "%s--%s" $object (include "zstreamer.modelName" $version) -}}
{{- $_ := set $labels "zstreamer/version" (include "zstreamer.modelName" $version) -}}
{{- end -}}
{{- if hasKey $names $object -}}
{{- fail (printf "models: %s and %s would both be the Deployment %s: rename one" (get $names $object) $served $object) -}}
{{- end -}}
{{- $_ := set $names $object $served -}}
{{- $found = append $found (mergeOverwrite $one (dict "model" $model "version" $version "served" $served "object" $object "labels" $labels)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* Not empty where the brokers have a file of routes. */}}
{{- define "zstreamer.routed" -}}
{{- if .Values.routes -}}yes{{- end -}}
{{- range .Values.models -}}{{- if .versions -}}yes{{- end -}}{{- end -}}
{{- end -}}

{{- define "zstreamer.firstModel" -}}
{{- $first := include "zstreamer.workers" . | fromJsonArray | first | default dict -}}
{{- .Values.gateway.model | default $first.model | default "default" -}}
{{- end -}}

{{/* A map as an inline table of TOML. */}}
{{- define "zstreamer.inlineTable" -}}
{{- $parts := list -}}
{{- range $key, $value := . -}}
{{- $parts = append $parts (printf "%s = %v" (toJson $key) $value) -}}
{{- end -}}
{ {{ join ", " $parts }} }
{{- end -}}
