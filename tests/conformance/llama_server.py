"""A server with OpenAI's API: that of llama.cpp, with the flags of vLLM that the blocks use."""

import argparse
import signal

import xllamacpp

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--served-model-name", required=True)
parser.add_argument("--max-model-len", type=int, required=True)
given = parser.parse_args()

params = xllamacpp.CommonParams()
params.model.path = given.model
params.model_alias = {given.served_model_name}
params.n_ctx = given.max_model_len
params.n_parallel = 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.hostnames = ["127.0.0.1"]
params.port = given.port
server = xllamacpp.Server(params)  # it listens in threads of its own
signal.pause()
