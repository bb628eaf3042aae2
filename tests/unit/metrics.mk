# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS	+= test_metrics
test_metrics_SRC	:= tests/unit/test_metrics.c overlayd/metrics.c overlayd/metrics_http.c $(common_SRC)
test_metrics_LIBS	:= $(LIBS_ev) $(LIBS_json) -lmicrohttpd
