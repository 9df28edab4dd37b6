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
{{- . | lower | replace "_" "-" | replace "." "-" | replace "/" "-" -}}
{{- end -}}

{{- define "zstreamer.firstModel" -}}
{{- .Values.gateway.model | default (keys .Values.models | sortAlpha | first) -}}
{{- end -}}
